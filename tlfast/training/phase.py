"""One phase of a training: find the rate, fit one cycle, keep the best epoch, say how it goes, go on with it after an interruption."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import fastai.callback.progress  # noqa: F401 (gives a Learner no_bar)
import torch
from fastai.callback.mixup import MixUp
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from ..core import signals
from ..core.errors import TrainingError
from ..core.events import Note, OnEvent
from ..core.journal import Journal
from ..core.settings import Settings
from . import checkpoints
from .callbacks.early_stopping import KeepBest, StopAtNan
from .callbacks.progress import ProgressCallback, silence_fastai
from .lr_finder import find_rate
from .types import FeaturePass, Phase, RateCurve

EPOCHS_KEY = "epochs"  # in the journal, where the finder's steps have changed them


@dataclass(frozen=True)
class PhasePlan:
    """What one phase does. `spread` divides the rate for the lowest group of parameters; `rate_scale` multiplies the finder's `minimum`.

    The rate is `customary` at least, if that lies well below the one from which on the loss climbs: where what trains is good already, the curve
    before it is so flat that its minimum is chance (the four topmost stages on FER2013: 1e-4, and 0.553 after 8 epochs). `features` is the pass
    that made what it trains on, `precision` its number format: both are only told of. `epochs_in_time`, if given, says from the seconds that a step
    takes an image how many epochs there shall be after all.
    """

    name: str
    epochs: int
    spread: float = 1.0
    rate_scale: float = 1.0
    customary: float = 0.0
    features: FeaturePass | None = None
    precision: str = "off"
    epochs_in_time: Callable[[float], int] | None = None


def fit_phase(learn: Learner, plan: PhasePlan, settings: Settings, on_event: OnEvent, journal: Journal, model: nn.Module, before: Phase | None = None) -> Phase:
    """Train `learn` for one phase and leave it at its best epoch by the chosen metric; keep in the journal the whole `model` as it then is.

    `before` is the phase that brought the model to where it stands: if no epoch of this one is better than its best, the model stays there.
    Raises TrainingError where the loss becomes no number before there is an epoch to keep, KeyboardInterrupt after a Ctrl-C.
    """
    started = time.perf_counter()
    curve = _search_rate(learn, plan, settings, on_event, journal) if settings.rate is None else None
    plan = _adjust_epochs(plan, curve, on_event, journal)
    searched = time.perf_counter() - started
    lr = settings.rate or curve.suggestion
    lowest = lr / plan.spread
    reseed(learn, settings.seed)  # the finder has drawn random numbers
    point = getattr(before.epochs[before.best_epoch - 1], settings.metric) if before and before.best_epoch else None
    watch, best, broken = ProgressCallback(plan, on_event), KeepBest(settings.metric, settings.patience, point), StopAtNan()
    kept = checkpoints.load_newest(journal, plan.name)
    with signals.defer_interrupts() as asked, silence_fastai(learn):
        keeper = checkpoints.Checkpoints(journal, plan.name, settings.checkpoint_minutes, asked, on_event, kept)
        callbacks = [watch, best, broken, keeper] + ([checkpoints.SkipBatches(kept)] if kept else []) + ([MixUp(settings.mixup)] if settings.mixup else [])
        rates = slice(lowest, lr) if plan.spread > 1 else lr
        learn.fit_one_cycle(plan.epochs, rates, cbs=callbacks, start_epoch=kept["epoch"] if kept else 0)
        _check_outcome(best, broken, plan, before, lr, on_event)
        per_second = watch.images / watch.seconds if watch.seconds else 0.0
        seconds = searched + keeper.seconds
        phase = Phase(plan.name, lr, lowest, watch.rows, best.best_epoch, seconds, per_second, curve, plan.features, plan.precision)
        checkpoints.save_phase(journal, phase, model, on_event)
    return phase


def _search_rate(learn: Learner, plan: PhasePlan, settings: Settings, on_event: OnEvent, journal: Journal) -> RateCurve:
    def search() -> dict[str, Any]:
        reseed(learn, settings.seed)
        return asdict(find_rate(learn, plan, on_event))

    return RateCurve(**journal.once(f"rates of {plan.name}", search))


def _adjust_epochs(plan: PhasePlan, curve: RateCurve | None, on_event: OnEvent, journal: Journal) -> PhasePlan:
    """Return the plan with as many epochs as end in time, by the steps that the finder took."""
    if not (plan.epochs_in_time and curve and curve.step):
        return plan
    epochs = journal.once(EPOCHS_KEY, lambda: plan.epochs_in_time(curve.step))
    if epochs != plan.epochs:
        on_event(Note(plan.name, f"{epochs} epochs in place of {plan.epochs}: so many end in time, at {1 / curve.step:,.0f} images/s"))
    return replace(plan, epochs=epochs)


def reseed(learn: Learner, seed: int) -> None:
    """Seed all generators, and that of the loader, which is its own: what a fit draws depends on nothing that went before."""
    set_seed(seed, reproducible=True)
    learn.dls.train.rng = random.Random(seed)


def _check_outcome(best: KeepBest, broken: StopAtNan, plan: PhasePlan, before: Phase | None, lr: float, on_event: OnEvent) -> None:
    """Say what became of a fit that has no epoch of its own to keep, or whose loss was no number."""
    lower = f"Try a lower --lr than {lr:.1e}, or --amp off"
    if broken.step and best.state is None:
        raise TrainingError(f"the loss of the {plan.name} was not a number at step {broken.step}, before there was an epoch to keep", lower)
    if broken.step:
        on_event(Note(plan.name, f"the loss was not a number at step {broken.step}: stopped there, the best epoch is kept. {lower}"))
    if not best.best_epoch and before:
        found = f"no epoch was better than the {before.name} alone ({best.metric} {best.point:.4f}), which is kept"
        on_event(Note(plan.name, f"{found}. Try more --epochs, or a lower --lr than {lr:.1e}"))


def balance_classes(labels: list[int], classes: int) -> torch.Tensor:
    """Return n / (c * count) for each class, `[c]`: scikit-learn's "balanced" weights."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
    return len(labels) / (classes * counts)
