"""Memory of a fit on a CPU."""

from __future__ import annotations

import pytest

from tests.helpers.training import SHORT, resolved
from tlfast.training import trainer
from tlfast.training.callbacks import memory


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, True), (1e6, False)])
def test_freed_blocks_are_released_after_some_time(folder, monkeypatch, seconds, expected):
    released = []
    monkeypatch.setattr(memory, "RELEASED_AFTER", seconds)
    monkeypatch.setattr(memory, "release_memory", lambda: released.append(1))
    task, chosen = resolved(folder, "full", **SHORT)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        phases, _ = trainer.fit(session, chosen)
    assert bool(released) == expected and len(phases) == 2
