"""One phase of a training: find the rate, fit one cycle, keep the best epoch, resume after an interruption."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.learner import Learner
from fastai.torch_core import set_seed

from ..core import signals
from ..core.errors import TrainingError
from ..core.events import Note, OnEvent
from ..core.journal import Journal
from ..core.settings import Settings
from . import checkpoints
from .callbacks.early_stopping import KeepBest, StopAtNan
from .callbacks.progress import ProgressCallback, silence_fastai
from .features import Features
from .lr_finder import RateRule, find_rate
from .session import Session
from .types import FeaturePass, Phase, RateCurve

DEFAULT_RULE = RateRule()  # of the head: what the finder suggests
EPOCHS_KEY = "epochs"  # in the journal, where the finder's steps have changed them


@dataclass(frozen=True)
class OpenPhase:
    """A phase that is ready to be fitted: its Learner, precision, and what its features cost.

    `features` are given where they hold the whole network's input to the head, so that the fitted head can predict from them.
    """

    learn: Learner
    precision: str = "off"
    cost: FeaturePass | None = None
    features: Features | None = None


@dataclass(frozen=True)
class PhasePlan:
    """One phase: its name, epochs and rates, and how its Learner is opened.

    `open` takes the settings, with a halved batch after an out-of-memory error. `epochs_in_time` maps the seconds that a step takes per image to
    the number of epochs that fit the time budget; None without `--minutes`.
    """

    name: str
    epochs: int
    open: Callable[[Settings], AbstractContextManager[OpenPhase]]
    rates: RateRule = DEFAULT_RULE
    epochs_in_time: Callable[[float], int] | None = None


def fit_phase(session: Session, plan: PhasePlan, opened: OpenPhase, settings: Settings, before: Phase | None = None) -> Phase:
    """Fit one phase and leave its model at the best epoch by the chosen metric; save the session's whole model in the journal.

    `before` is the previous phase: if no epoch of this one is better than its best, the model stays as that phase left it.
    Raises TrainingError if the loss is not finite before there is an epoch to keep, KeyboardInterrupt after a Ctrl-C.
    """
    learn, journal, on_event, started = opened.learn, session.journal, session.on_event, time.perf_counter()
    curve = search_rate(session, plan, opened, settings) if settings.rate is None else None
    epochs = _adjust_epochs(plan, curve, on_event, journal)
    searched = time.perf_counter() - started
    lr = settings.rate or (curve.suggestion if curve else 0.0)
    reseed(learn, settings.seed)  # the finder has drawn random numbers
    to_beat = getattr(before.epochs[before.best_epoch - 1], settings.metric) if before and before.best_epoch else None
    progress, best, finite = ProgressCallback(plan.name, epochs, on_event), KeepBest(settings.metric, settings.patience, to_beat), StopAtNan()
    start = checkpoints.load_newest(journal, plan.name)
    with signals.defer_interrupts() as asked, silence_fastai(learn):
        keeper = checkpoints.Checkpoints(journal, plan.name, settings.checkpoint_minutes, asked, on_event, start)
        callbacks: list[Callback] = [progress, best, finite, keeper]
        callbacks += [checkpoints.SkipBatches(start)] if start else []
        callbacks += [MixUp(settings.mixup)] if settings.mixup else []
        lowest = lr / plan.rates.spread
        learn.fit_one_cycle(epochs, slice(lowest, lr) if plan.rates.spread > 1 else lr, cbs=callbacks, start_epoch=start["epoch"] if start else 0)
        _check_outcome(best, finite, plan.name, before, lr, on_event)
        per_second = progress.images / progress.seconds if progress.seconds else 0.0
        seconds = searched + keeper.seconds
        phase = Phase(plan.name, lr, lowest, progress.rows, best.best_epoch, seconds, per_second, curve, opened.cost, opened.precision)
        checkpoints.save_phase(journal, phase, session.learn.model, on_event)
    return phase


def search_rate(session: Session, plan: PhasePlan, opened: OpenPhase, settings: Settings) -> RateCurve:
    """Run the learning-rate finder for a phase, or return the curve that an interrupted training found."""

    def search() -> dict[str, Any]:
        reseed(opened.learn, settings.seed)
        return asdict(find_rate(opened.learn, plan.name, plan.epochs, plan.rates, session.on_event))

    return RateCurve(**session.journal.once(f"rates of {plan.name}", search))


def _adjust_epochs(plan: PhasePlan, curve: RateCurve | None, on_event: OnEvent, journal: Journal) -> int:
    """Return the plan's epochs, or with a time budget as many as fit it at the speed of the finder's steps."""
    fit_budget = plan.epochs_in_time
    if not (fit_budget and curve and curve.step):
        return plan.epochs
    step = curve.step
    epochs = journal.once(EPOCHS_KEY, lambda: fit_budget(step))
    if epochs != plan.epochs:
        on_event(Note(plan.name, f"{epochs} epochs in place of {plan.epochs}: so many end in time, at {1 / step:,.0f} images/s"))
    return epochs


def reseed(learn: Learner, seed: int) -> None:
    """Seed all generators and that of the loader, so that a fit does not depend on what was drawn before."""
    set_seed(seed, reproducible=True)
    learn.dls.train.rng = random.Random(seed)


def _check_outcome(best: KeepBest, finite: StopAtNan, phase: str, before: Phase | None, lr: float, on_event: OnEvent) -> None:
    """Report a fit whose loss was not finite, or that has no epoch of its own to keep."""
    lower = f"Try a lower --lr than {lr:.1e}, or --amp off"
    if finite.step and best.state is None:
        raise TrainingError(f"the loss of the {phase} was not a number at step {finite.step}, before there was an epoch to keep", lower)
    if finite.step:
        on_event(Note(phase, f"the loss was not a number at step {finite.step}: stopped there, the best epoch is kept. {lower}"))
    if not best.best_epoch and before:
        found = f"no epoch was better than the {before.name} alone ({best.metric} {best.point:.4f}), which is kept"
        on_event(Note(phase, f"{found}. Try more --epochs, or a lower --lr than {lr:.1e}"))
