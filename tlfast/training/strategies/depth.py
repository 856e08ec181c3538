"""Fine-tuning to a depth: the topmost stages train on cached activations of the frozen stages below.

The lowest stages take most of the time and change least in fine-tuning. While they are frozen, they run once for each augmented view; an epoch has
each image in one view.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from ...core import Settings, TrainingSettings
from ...core.settings import AUTO_BATCH
from ...core.system import release_memory
from ...models import SplitBody, split_at
from .. import processes
from ..activations import BATCH_FORWARD, HEAD_IMAGES, ActivationLoader, activation_shape, compute_features
from ..amp import settle_step_precision, use_precision
from ..batch_size import resolve_batch, use_default_batch
from ..batchnorm import ADAPTING_BATCHES, adapt_batchnorm
from ..budget import read_budget
from ..callbacks.distillation import Distillation
from ..callbacks.from_settings import build_callbacks
from ..compilation import use_compilation
from ..distillation import compute_targets
from ..durations import closing_seconds, epoch_seconds, feature_seconds, finder_batches, head_seconds, teacher_seconds
from ..feature_learner import open_head
from ..features import Features, broadcast_precision, extract
from ..learner import split_parameters
from ..lr_finder import RateRule
from ..optim import build_adam
from ..phase import OpenPhase, PhasePlan
from ..planner import resolve_depth
from ..recording import epoch_metrics, record_on_device
from ..session import Session
from ..types import DepthPlan, Timing, Work
from .base import get_strategy

# A smaller spread than in full fine-tuning; see docs/benchmarks.md, "Learning rates".
RATES = RateRule(customary=2e-3, spread=2.0, scale=20.0, least=2e-3)
VALID_BATCHES = 4  # training batches whose images one batch of the validation holds; a pass without gradients takes less memory


class Depth:
    """Train the head, then the topmost stages and the head."""

    name: ClassVar[str] = "depth"

    def resolve(self, session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
        settled, plans = resolve_depth(session, use_default_batch(settings))
        if settings.bs:
            return settled, plans
        settled = replace(settled, bs=AUTO_BATCH)
        if settled.strategy != self.name:  # chosen by `--minutes`
            return get_strategy(settled.strategy).resolve(session, settled)[0], plans
        body, head = session.learn.model
        parts = split_at(body, settled.arch, int(settled.depth), settled.size)
        return resolve_batch(session, settled, nn.Sequential(parts.upper, head), activation_shape(parts, settled.size)), plans

    def phases(self, session: Session, settings: Settings) -> Iterator[PhasePlan]:
        lower = _LowerStages(session, settings)
        if processes.world_size() > 1:
            _ = lower.activations  # each process computes some of the views
        if settings.freeze_epochs:
            yield PhasePlan("head", settings.freeze_epochs, lambda attempt: _open_head(session, lower, attempt))
        budget = read_budget(session.journal)
        yield PhasePlan("upper stages", settings.epochs, lambda attempt: _open_upper(session, lower, attempt), RATES, budget, parallel=True)

    def find_frozen(self, session: Session, settings: Settings) -> nn.Module | None:
        return _LowerStages(session, settings).parts.lower

    def trainable(self, model: nn.Sequential, settings: Settings) -> list[nn.Module]:
        return [model[1], split_at(model[0], settings.arch, int(settings.depth), settings.size).upper]

    def estimate(self, timing: Timing, work: Work, settings: Settings) -> DepthPlan:
        head_images = min(work.train, HEAD_IMAGES)
        seconds = work.elapsed + feature_seconds(timing, timing.lower, work, settings.views) + teacher_seconds(work, settings.views)
        seconds += head_seconds(work, settings, head_images, settings.freeze_epochs)
        seconds += ADAPTING_BATCHES * settings.bs * timing.upper + (head_images + work.valid) * timing.upper
        seconds += finder_batches(settings) * settings.bs * timing.step + settings.epochs * epoch_seconds(timing.step, timing.upper, work, settings)
        return timing.plan(settings.views, settings.epochs, seconds + closing_seconds(work))


class _LowerStages:
    """The divided body, and the cached activations of its lower part; computed when a phase first needs them."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.session, self.settings = session, settings

    @cached_property
    def parts(self) -> SplitBody:
        return split_at(self.session.learn.model[0], self.settings.arch, int(self.settings.depth), self.settings.size)

    @cached_property
    def activations(self) -> Features:
        lower = self.parts.lower
        return extract(lower, self.session, broadcast_precision(lower, self.session, self.settings))


@contextmanager
def _open_head(session: Session, lower: _LowerStages, settings: Settings) -> Iterator[OpenPhase]:
    activations, upper = lower.activations, lower.parts.upper
    set_seed(settings.seed)  # the loader draws its seed
    loader = ActivationLoader(activations.train, settings.bs, True, session.learn.dls.device)
    adapt_batchnorm(upper, loader, settings, activations.cost.precision, session.on_event)
    features = compute_features(activations, lower.parts, session.on_event)
    of_head = replace(settings, bs=min(settings.bs, TrainingSettings.bs))  # features are few: a large batch of the upper stages leaves few steps
    with open_head(session.learn, features, of_head) as phase:
        yield phase


@contextmanager
def _open_upper(session: Session, lower: _LowerStages, settings: Settings) -> Iterator[OpenPhase]:
    """Open a Learner of the upper stages and the head on the activations; it shares its layers with the session's model."""
    activations, learn = lower.activations, session.learn
    release_memory()
    body, head = learn.model
    device = learn.dls.device
    soft = compute_targets(session, lower.settings)
    train = ActivationLoader(activations.train, settings.bs, True, device, soft)
    valid = ActivationLoader(activations.valid, min(BATCH_FORWARD, VALID_BATCHES * settings.bs), False, device)
    upper = Learner(
        DataLoaders(train, valid, device=device),
        nn.Sequential(lower.parts.upper, head),
        learn.loss_func,
        opt_func=build_adam,
        splitter=lambda model: split_parameters(model, body),
        metrics=epoch_metrics(),
        path=learn.path,
        model_dir=learn.model_dir,
    )
    record_on_device(upper).unfreeze()
    shape = activations.train[torch.tensor([0])].shape[1:]
    precision = settle_step_precision(session, upper.model, settings, shape)
    callbacks = [*build_callbacks(settings), *([] if soft is None else [Distillation()])]
    with use_compilation(upper.model, settings.compile), use_precision(upper, precision), upper.added_cbs(callbacks):
        yield OpenPhase(upper, precision, activations.cost)


STRATEGY = Depth()
