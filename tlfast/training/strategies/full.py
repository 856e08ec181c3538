"""Full fine-tuning: the head first, then all layers at discriminative rates.

Linear probing before fine-tuning follows Kumar et al. 2022 (arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

from torch import nn

from ...core import Settings, TrainingSettings
from ..batch_size import resolve_batch
from ..batchnorm import ADAPTING_BATCHES, adapt_batchnorm
from ..budget import read_budget
from ..durations import closing_seconds, epoch_seconds, feature_seconds, finder_batches, head_seconds
from ..feature_learner import open_head
from ..features import extract, pass_precision
from ..image_phase import open_images
from ..lr_finder import RateRule
from ..phase import OpenPhase, PhasePlan
from ..session import Session
from ..types import DepthPlan, Timing, Work

# The lowest group of parameters trains at a fifth of the head's rate; see docs/benchmarks.md, "Learning rates".
RATES = RateRule(customary=3e-3, spread=5.0, scale=10.0, least=2e-3)


class Full:
    """Train the head, then all layers."""

    name: ClassVar[str] = "full"

    def resolve(self, session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
        return resolve_batch(session, settings, session.learn.model, (3, settings.size, settings.size)), []

    def phases(self, session: Session, settings: Settings) -> Iterator[PhasePlan]:
        if settings.freeze_epochs:
            yield PhasePlan("head", settings.freeze_epochs, lambda attempt: _open_head(session, attempt))
        yield PhasePlan("all layers", settings.epochs, lambda attempt: _open_all_layers(session, attempt), RATES, read_budget(session.journal), parallel=True)

    def find_frozen(self, session: Session, settings: Settings) -> nn.Module | None:
        return None  # BatchNorm is adapted before the head is trained

    def trainable(self, model: nn.Sequential, settings: Settings) -> list[nn.Module]:
        return [model[1], model[0]]

    def estimate(self, timing: Timing, work: Work, settings: Settings) -> DepthPlan:
        settled = settings.depth == timing.depth  # else the depth is yet to be chosen
        views, forward = settings.views if settled else min(settings.views, TrainingSettings.views), work.whole.upper
        augment, step = work.costs.augment, timing.step + work.costs.augment + work.costs.teacher
        seconds = work.elapsed + feature_seconds(timing, forward, work, views)
        seconds += head_seconds(work, settings, work.train * views, settings.freeze_epochs)
        seconds += ADAPTING_BATCHES * settings.bs * (forward + augment)
        seconds += finder_batches(settings) * settings.bs * step + settings.epochs * epoch_seconds(step, timing.upper, work, settings)
        return timing.plan(views, settings.epochs, seconds + closing_seconds(work))


@contextmanager
def _open_head(session: Session, settings: Settings) -> Iterator[OpenPhase]:
    body = session.learn.model[0]
    session.use_batch_size(settings)
    adapt_batchnorm(body, session.learn.dls.train, settings, pass_precision(body, session, settings), session.on_event)
    with open_head(session.learn, extract(body, session, settings), settings) as phase:
        yield phase


def _open_all_layers(session: Session, attempt: Settings) -> AbstractContextManager[OpenPhase]:
    session.learn.unfreeze()
    return open_images(session, attempt)


STRATEGY = Full()
