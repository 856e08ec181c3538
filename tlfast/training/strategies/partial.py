"""Partial fine-tuning: the backbone stays frozen and the head trains on its features.

The frozen backbone runs once for each augmented view. With `--train-bn` the head trains on images instead, and BatchNorm adapts as with
fastai's `freeze`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import ClassVar

from torch import nn

from ...core import Settings, TrainingSettings
from ..batch_size import use_default_batch
from ..distillation import compute_targets
from ..durations import CLOSING, closing_seconds, epoch_seconds, feature_seconds, finder_batches, head_seconds, teacher_seconds
from ..feature_learner import open_head
from ..features import extract
from ..image_phase import open_images
from ..phase import OpenPhase, PhasePlan
from ..session import Session
from ..types import DepthPlan, Timing, Work


class Partial:
    """Train the head alone, on cached features."""

    name: ClassVar[str] = "partial"

    def resolve(self, session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
        return use_default_batch(settings), []  # the batches of features grow with the data

    def phases(self, session: Session, settings: Settings) -> Iterator[PhasePlan]:
        if settings.train_bn:
            yield PhasePlan("head and BatchNorm", settings.epochs, lambda attempt: _open_images(session, attempt))
        else:
            features = partial(extract, session.learn.model[0], session, settings)
            soft = partial(compute_targets, session, settings)
            yield PhasePlan("head", settings.epochs, lambda attempt: open_head(session.learn, features(), attempt, soft()), features=features)

    def find_frozen(self, session: Session, settings: Settings) -> nn.Module | None:
        return None if settings.train_bn else session.learn.model[0]

    def trainable(self, model: nn.Sequential, settings: Settings) -> list[nn.Module]:
        return [model[1]]

    def estimate(self, timing: Timing, work: Work, settings: Settings) -> DepthPlan:
        if settings.train_bn:
            step = work.whole.step + work.costs.augment + work.costs.teacher  # back-propagation reaches the lowest BatchNorm
            seconds = work.elapsed + finder_batches(settings) * settings.bs * step
            seconds += settings.epochs * epoch_seconds(step, work.whole.upper, work, settings) + closing_seconds(work)
            return replace(timing, step=step, gigabytes=()).plan(settings.views, settings.epochs, seconds)
        most = settings.internals.most_epochs or settings.epochs
        epochs = min(max(settings.epochs, TrainingSettings.epochs), most)  # an epoch of the head costs little
        seconds = work.elapsed + feature_seconds(timing, timing.lower, work, settings.views) + teacher_seconds(work, settings.views)
        seconds += head_seconds(work, settings, work.train * settings.views, epochs) + CLOSING  # the valid split is predicted from its features
        return timing.plan(settings.views, epochs, seconds)


def _open_images(session: Session, attempt: Settings) -> AbstractContextManager[OpenPhase]:
    session.learn.freeze()  # in fastai, BatchNorm layers keep training
    return open_images(session, attempt)


STRATEGY = Partial()
