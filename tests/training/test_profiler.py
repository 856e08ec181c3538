"""Timing of training steps at several depths."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.training import resolved
from tlfast.core.errors import TrainingError
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


@pytest.mark.parametrize(("fitting", "tried", "timed"), [(64, [8, 64], [64]), (20, [8, 64, 32, 16], [16]), (3, [8, 4, 2, 64, 32, 16, 8, 4, 2], [2])])
def test_timing_halves_a_batch_that_does_not_fit(fitting, tried, timed):
    sizes = []

    def run(count):
        sizes.append(count)
        if count > fitting:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [1e-6]

    watch = profiler._time_batches(run, 64, torch.device("cpu"))
    assert watch() == [1e-6] and sizes == tried
    assert watch() == [1e-6] and sizes == tried + timed
    with pytest.raises(TrainingError, match="out of memory on cpu while steps with 2 images were timed"):
        profiler._time_batches(lambda count: run(65), 64, torch.device("cpu"))


def test_a_teacher_is_timed(folder, trained_run):
    task, chosen = resolved(folder, "partial", views=3, amp="off", teacher=str(trained_run.full))
    with trainer.prepare(task, chosen, lambda event: None) as session:
        timings = profiler.time_depths(session, chosen, time_limit=0.0)
        assert timings.teacher > 0 and timings.uncached_teacher == features.count_images(session.table, chosen)
        trainer.fit(session, chosen)
        assert profiler.time_depths(session, chosen, time_limit=0.0).uncached_teacher == [0, 0, 0]
