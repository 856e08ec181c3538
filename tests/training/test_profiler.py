"""Timing of training steps at several depths."""

from __future__ import annotations

import pytest

from tlfast.training import profiler


@pytest.mark.parametrize(("until", "rounds"), [(0.0, 1), (float("inf"), profiler.ROUNDS)])
def test_no_round_of_timing_begins_too_late(until, rounds):
    said, drawn = [], iter(range(100))
    assert profiler._run_in_turns({"one": lambda: [float(next(drawn))], "other": lambda: [5.0, 7.0]}, until, said.append) == {"one": rounds // 2, "other": 6.0}
    assert [event.done for event in said] == [*range(2 * rounds), 2 * profiler.ROUNDS] and next(drawn) == rounds
