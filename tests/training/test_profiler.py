"""Timing of training steps at several depths."""

from __future__ import annotations

import pytest

from tests.helpers.training import resolved
from tlfast.training import features, profiler, trainer


@pytest.mark.parametrize(("until", "rounds"), [(0.0, 1), (float("inf"), profiler.ROUNDS)])
def test_no_round_of_timing_begins_too_late(until, rounds):
    said, drawn = [], iter(range(100))
    assert profiler._run_in_turns({"one": lambda: [float(next(drawn))], "other": lambda: [5.0, 7.0]}, until, said.append) == {"one": rounds // 2, "other": 6.0}
    assert [event.done for event in said] == [*range(2 * rounds), 2 * profiler.ROUNDS] and next(drawn) == rounds


def test_cached_features_need_no_time(folder):
    task, chosen = resolved(folder, "partial", views=2)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        features.extract(session.learn.model[0], session, chosen)
        timings = profiler.time_depths(session, chosen, time_limit=0.0)
    by_depth = {timing.depth: timing for timing in timings.depths}
    assert by_depth["0"].uncached == [0, 0] and all(by_depth["all"].uncached)
