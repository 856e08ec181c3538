"""One phase of a training: find the learning rate, fit one cycle, keep an epoch, resume after an interruption."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed

from ..core import Journal, Note, OnEvent, Settings, TrainingError, TrainingSettings, signals
from . import checkpoints, processes
from .budget import Budget
from .callbacks.early_stopping import KeepEpoch, StopAtNan
from .callbacks.losses import ReadLosses
from .callbacks.memory import ReleaseMemory
from .callbacks.mixup import MixUp
from .callbacks.progress import ProgressCallback, silence_fastai
from .callbacks.time_budget import KeepToBudget
from .data_parallel import count_processes
from .features import Features
from .lr_finder import RateRule, find_rate
from .session import Session
from .types import FeaturePass, Phase, RateCurve

SEED_STEP = 1_000_003  # between the seeds of processes
# Batches of features grow with their number, at the same rate; see docs/benchmarks.md, "Learning rates".
HEAD_RATES = RateRule(customary=7e-3, by_batch=False)


@dataclass(frozen=True)
class OpenPhase:
    """A phase ready to be fitted: its Learner, its precision, and the cost of its features.

    `features` is given if the phase trains the head alone on features of the whole backbone, so that the fitted head can predict from them.
    """

    learn: Learner
    precision: str = "off"
    cost: FeaturePass | None = None
    features: Features | None = None


@dataclass(frozen=True)
class PhasePlan:
    """One phase to be fitted: its name, epochs and rates, and how to open its Learner.

    `open` takes the settings of an attempt: after an out-of-memory error, with half the batch. `budget` is the time budget, None without
    `--minutes`. `features` reads the features from which the fitted head can predict; None if it cannot. With several processes, all train a
    `parallel` phase together, and the first process alone trains the others.
    """

    name: str
    epochs: int
    open: Callable[[Settings], AbstractContextManager[OpenPhase]]
    rates: RateRule = HEAD_RATES
    budget: Budget | None = None
    features: Callable[[], Features] | None = None
    parallel: bool = False


def fit_phase(session: Session, plan: PhasePlan, opened: OpenPhase, settings: TrainingSettings, before: Phase | None = None) -> Phase:
    """Fit one phase, keep the weights of its last or best epoch, and save the session's model in the journal.

    `before` is the phase before: if no epoch is as good as its kept one by `settings.metric`, its weights are restored, except with `--keep last`.
    Raises TrainingError if the loss is not finite and there are no weights to restore, KeyboardInterrupt after Ctrl-C.
    """
    learn, journal, on_event, started = opened.learn, session.journal, session.on_event, time.perf_counter()
    curve = search_rate(session, plan, opened, settings) if settings.rate is None else None
    epochs = _adjust_epochs(plan, curve, on_event, journal)
    search_seconds = time.perf_counter() - started
    cost = FeaturePass(**journal.once(f"features of {plan.name}", partial(asdict, opened.cost))) if opened.cost else None
    lr = settings.rate or (curve.rate if curve else 0.0)
    reseed(learn, settings.seed)  # the finder drew random numbers
    progress, finite = ProgressCallback(plan.name, on_event), StopAtNan()
    to_beat = None if settings.keep == "last" else _kept_value(before, settings)
    keep = KeepEpoch(settings.metric, settings.patience, settings.keeps_best, to_beat)
    start = checkpoints.load_newest(journal, plan.name, on_event)
    if plan.parallel:
        start = processes.broadcast(start)
    start = checkpoints.place_checkpoint(start, learn) if start else None
    with signals.defer_interrupts() as interrupted, silence_fastai(learn):
        saver = checkpoints.Checkpoints(journal, plan.name, settings.checkpoint_minutes, interrupted, on_event, start)
        callbacks: list[Callback] = [progress, keep, finite, saver, ReadLosses(), *session.callbacks]
        callbacks += [checkpoints.SkipBatches(start)] if start else []
        callbacks += [MixUp(settings.mixup)] if settings.mixup else []
        callbacks += [ReleaseMemory()] if learn.dls.device.type == "cpu" else []
        callbacks += [KeepToBudget(plan.budget, epochs, journal, progress)] if plan.budget else []
        most = plan.budget.most if plan.budget else epochs
        lowest = lr / plan.rates.spread
        learn.fit_one_cycle(most, slice(lowest, lr) if plan.rates.spread > 1 else lr, cbs=callbacks, start_epoch=start["epoch"] if start else 0)
        _check_outcome(keep, finite, plan.name, before, lr, on_event)
        per_second = progress.images / progress.seconds if progress.seconds else 0.0
        seconds = search_seconds + saver.seconds
        phase = Phase(plan.name, lr, lowest, progress.rows, keep.kept_epoch, seconds, per_second, curve, cost, opened.precision)
        checkpoints.save_phase(journal, phase, session.learn.model, on_event)
    return phase


def _kept_value(phase: Phase | None, settings: TrainingSettings) -> float | None:
    """Return the metric of a phase's kept epoch; None without a phase, or if it kept none."""
    return float(getattr(phase.epochs[phase.kept_epoch - 1], settings.metric)) if phase and phase.kept_epoch else None


def search_rate(session: Session, plan: PhasePlan, opened: OpenPhase, settings: TrainingSettings) -> RateCurve:
    """Run the learning-rate finder for a phase and choose its rate, or return both from before an interruption."""

    def search() -> dict[str, Any]:
        reseed(opened.learn, settings.seed)
        return asdict(find_rate(opened.learn, plan.name, plan.epochs, plan.rates, settings.lr, session.on_event))

    curve = session.journal.once(f"rates of {plan.name}", search)
    return RateCurve(**(processes.broadcast(curve) if plan.parallel else curve))


def _adjust_epochs(plan: PhasePlan, curve: RateCurve | None, on_event: OnEvent, journal: Journal) -> int:
    """Return the plan's epochs; with a time budget, the number that fits it at the speed of the finder's steps.

    The plan was made earlier, from a few steps on noise. A resumed phase has the epochs of its last count.
    """
    budget = plan.budget
    if not budget:
        return plan.epochs
    if not (curve and curve.step):
        return journal.facts.epochs or plan.epochs
    step = curve.step
    epochs = int(journal.once("epochs", lambda: processes.broadcast(budget.count_epochs(journal.seconds, step))))
    if epochs != plan.epochs:
        on_event(Note(plan.name, f"{epochs} epochs instead of {plan.epochs} fit the time budget, at {1 / step:,.0f} images/s"))
    return epochs


def reseed(learn: Learner, seed: int) -> None:
    """Seed all generators and that of the training loader, so that a fit does not depend on numbers drawn before.

    Processes that fit a Learner together draw different augmentations, but shuffle alike.
    """
    set_seed(seed + (SEED_STEP * processes.rank() if count_processes(learn) > 1 else 0))
    learn.dls.train.rng = random.Random(seed)


def _check_outcome(keep: KeepEpoch, finite: StopAtNan, phase: str, before: Phase | None, lr: float, on_event: OnEvent) -> None:
    """Report a loss that was not finite, and a fit without an improvement. Raises TrainingError if there are no weights to restore."""
    advice = f"Try a lower --lr than {lr:.1e}, or --amp off"
    if finite.step and keep.state is None:
        raise TrainingError(f"the loss became NaN or infinite at step {finite.step} of phase '{phase}', before the end of its first epoch", advice)
    if finite.step:
        which = "best" if keep.keeps_best else "last complete"
        on_event(Note(phase, f"the loss became NaN or infinite at step {finite.step}: stopped, with the weights of the {which} epoch. {advice}"))
    if not keep.kept_epoch and before:
        found = f"no epoch is as good as phase '{before.name}' ({keep.metric} {keep.to_beat:.4f}): its weights are restored"
        on_event(Note(phase, f"{found}. Try more --epochs, or a lower --lr than {lr:.1e}"))
