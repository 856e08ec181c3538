"""The learning rate finder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from tests.helpers.training import resolved
from tlfast.training import lr_finder, trainer


def test_a_flat_curve_gives_no_rate_by_chance():
    rates = [1e-5 * 10 ** (i / 12) for i in range(60)]
    flat = [1.6 + 0.01 * (i % 3) if rate < 1e-2 else 1.6 + 30 * rate for i, rate in enumerate(rates)]
    assert lr_finder.find_divergence(rates, flat) == pytest.approx(1.2e-2, rel=0.25)
    assert lr_finder.find_divergence(rates, [0.9, *flat[1:]]) == lr_finder.find_divergence(rates, flat), "an easy first batch says nothing"
    falling = [3 - i / 60 for i in range(60)]
    assert lr_finder.find_divergence(rates, falling) == rates[-1]


@pytest.mark.parametrize(
    ("suggested", "climbs_from", "customary", "found"), [(1e-6, 1.0, 2e-3, 2e-3), (1e-6, 1e-3, 2e-3, 2e-4), (3e-4, 1.0, 2e-3, 6e-3), (1e-6, 1.0, 0.0, 2e-5)]
)
def test_the_finders_suggestion_has_a_lower_bound_well_below_where_the_loss_climbs(monkeypatch, suggested, climbs_from, customary, found):
    learn = Learner(DataLoaders(*[torch.utils.data.DataLoader([(torch.zeros(2), 0)])] * 2), torch.nn.Linear(2, 2), torch.nn.functional.cross_entropy)
    learn.recorder.lrs = [1e-5 * 10 ** (i / 12) for i in range(61)]
    learn.recorder.losses = [torch.tensor(1.0 if rate < climbs_from * 0.999 else 9.0) for rate in learn.recorder.lrs]
    monkeypatch.setattr(Learner, "lr_find", lambda self, **asked: SimpleNamespace(minimum=suggested), raising=False)
    curve = lr_finder.find_rate(learn, "upper stages", 1, lr_finder.RateRule(scale=20.0, customary=customary), lambda event: None)
    assert curve.suggestion == pytest.approx(found, rel=0.25)
    assert curve.suggestion <= lr_finder.HIGHEST_RATE


def test_the_finder_takes_no_more_steps_than_the_phase():
    assert [lr_finder.count_finder_steps(n) for n in (1, 20, 40, 5000)] == [20, 20, 40, 60]


def fail_in_search(monkeypatch, error, step):
    """Make step number `step` of each search raise `error`, once; return the learning rates of all searches."""
    from fastai.callback.schedule import LRFinder

    seen, before = [], LRFinder.before_batch

    def count(self):
        before(self)
        seen.append(self.train_iter)
        if len(seen) == step:
            raise error

    monkeypatch.setattr(LRFinder, "before_batch", count)
    return seen


def test_out_of_memory_is_no_failed_search(folder, monkeypatch):
    notes = []
    searched = fail_in_search(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), 5)
    task, chosen = resolved(folder, "full", lr="auto", freeze_epochs=0, epochs=1)
    with trainer.prepare(task, chosen, lambda event: notes.append(getattr(event, "note", ""))) as session:
        phases, _ = trainer.fit(session, chosen)
    assert any(note.startswith("out of memory with 8 images") for note in notes) and not any("finder failed" in note for note in notes)
    assert len(phases[0].curve.rates) == len(searched) - 5 > 10


def test_a_failed_search_restores_the_weights(folder, monkeypatch):
    notes = []
    fail_in_search(monkeypatch, RuntimeError("not a matter of memory"), 5)
    task, chosen = resolved(folder, "full", lr="auto", freeze_epochs=0, epochs=1)
    with trainer.prepare(task, chosen, lambda event: notes.append(getattr(event, "note", ""))) as session:
        before = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        curve = lr_finder.find_rate(session.learn, "all layers", 1, lr_finder.RateRule(), session.on_event)
        after = session.learn.model.state_dict()
    assert curve.suggestion == lr_finder.FALLBACK_RATE and any("finder failed" in note and "not a matter of memory" in note for note in notes)
    assert all(torch.equal(before[name], after[name]) for name in before)
