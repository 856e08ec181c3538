"""The number of epochs within a time budget."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.training import resolved
from tlfast.core.events import Note
from tlfast.training import trainer
from tlfast.training.budget import Budget
from tlfast.training.strategies import get_strategy

HUNDRED = Budget(ends=100.0, judging=1.0, closing=10.0, images=90, most=20)


def test_epochs_fill_the_time_that_is_left():
    assert HUNDRED.count_epochs(elapsed=40.0, step=0.1) == 5  # 50 s left, 10 s an epoch
    assert HUNDRED.count_epochs(elapsed=95.0, step=0.1) == 1
    assert HUNDRED.count_epochs(elapsed=0.0, step=0.01) == 20
    assert HUNDRED.recount_epochs(elapsed=50.0, done=2, epoch=20.0) == 4
    assert HUNDRED.recount_epochs(elapsed=99.0, done=2, epoch=20.0) == 2
    assert HUNDRED.recount_epochs(elapsed=0.0, done=2, epoch=0.1) == 20


@pytest.mark.parametrize("strategy", ["depth", "full"])
@pytest.mark.parametrize(("counted", "epochs"), [({}, 3), ({}, 7), ({}, 5), ({1: 4}, 3), ({1: 7, 2: 7}, 4)])
def test_a_fit_changes_its_epochs_if_they_take_longer_or_less_than_planned(folder, monkeypatch, strategy, counted, epochs):
    monkeypatch.setattr(Budget, "recount_epochs", lambda self, elapsed, done, epoch: counted.get(done, epochs))
    events = []
    task, chosen = resolved(folder, strategy, epochs=5, freeze_epochs=0, **({"depth": "1"} if strategy == "depth" else {}))
    with trainer.prepare(task, chosen, events.append) as session:
        (plan,) = get_strategy(strategy).phases(session, chosen)
        phase, _ = trainer.fit_within_memory(session, replace(plan, budget=replace(HUNDRED, most=8)), chosen, None)
        assert session.journal.facts.epochs == (None if epochs == 5 else epochs)
    assert [row.epoch for row in phase.epochs] == list(range(1, epochs + 1))
    notes = [event.note for event in events if isinstance(event, Note) and "fit the time budget" in event.note]
    assert (notes[-1].split(" instead")[0] if notes else "5 epochs") == f"{epochs} epochs"
