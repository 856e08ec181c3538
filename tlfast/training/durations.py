"""Durations of the parts of a training, from measured timings. The estimates of the strategies are sums of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import Settings, TrainingSettings
from .feature_learner import choose_head_batch
from .lr_finder import FINDER_STEPS
from .types import Timing, Work

CLOSING = 10.0  # seconds of export, plots and files at the end of a training


def feature_seconds(timing: Timing, seconds_per_image: float, work: Work, views: int) -> float:
    """Return the seconds of the frozen part's forward passes over the images that are not cached."""
    return _pass_seconds(timing.uncached[:views], seconds_per_image, work)


def teacher_seconds(work: Work, views: int) -> float:
    """Return the seconds of the teacher's passes over the images whose probabilities are not cached; 0 without a teacher."""
    return _pass_seconds(work.costs.uncached_teacher[:views], work.costs.teacher, work)


def _pass_seconds(uncached: Sequence[int], seconds_per_image: float, work: Work) -> float:
    """Return the seconds of forward passes over numbers of images, one for each view; the first view is not augmented."""
    return sum(uncached) * seconds_per_image + sum(uncached[1:]) * work.costs.augment


def epoch_seconds(step: float, upper: float, work: Work, settings: Settings) -> float:
    """Return the seconds of an epoch of training steps and its validation, in seconds per image `step` and `upper`. Processes divide the images."""
    return (work.train * step + work.valid * upper) / settings.gpus


def closing_seconds(work: Work) -> float:
    """Return the seconds from the last epoch to the end of a training."""
    return work.valid * work.whole.upper + CLOSING


def head_seconds(work: Work, settings: TrainingSettings, features: int, epochs: int) -> float:
    """Return the seconds of training the head on `features` features per epoch, including the learning-rate finder."""
    return work.costs.head * (epochs * (features + work.valid) + finder_batches(settings) * choose_head_batch(features, settings.bs))


def finder_batches(settings: TrainingSettings) -> int:
    """Return the number of steps of the learning-rate finder; 0 if a rate is given."""
    return FINDER_STEPS[1] if settings.rate is None else 0
