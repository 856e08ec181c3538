"""One phase of a training: find the rate, fit one cycle, keep the best epoch, say how it goes, go on with it after an interruption."""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import fastai.callback.progress  # noqa: F401 (gives a Learner no_bar)
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import minimum
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from . import checkpoints
from .core import signals
from .core.errors import TrainingError
from .core.events import Event, OnEvent
from .core.journal import Journal
from .core.settings import Settings
from .results import EpochRow, Pass, Phase, RateCurve

# Our names of the metrics -> fastai's.
MONITORS = {"accuracy": "accuracy", "macro_f1": "f1_score", "balanced_accuracy": "balanced_accuracy_score", "valid_loss": "valid_loss"}
FALLBACK_RATE = 1e-3  # where the finder fails: Adam's own default in most libraries
CUSTOMARY_RATE = 2e-3  # of one cycle for pretrained layers, see training.ALL_LAYERS and activations.UPPER
HIGHEST_RATE = 7e-3  # beyond it Adam forgets what was pretrained, however well the finder's few steps went
FINDER_RANGE = {"start_lr": 1e-5, "end_lr": 1.0}  # fastai's own, without the three decades in which nothing moves
CLIMBED = 1.2  # times its least, from which on a loss climbs
BELOW_EDGE = 5.0  # a rate that can be trusted lies this much below the one from which on the loss climbs
EPOCHS = "epochs"  # in the journal, where the finder's steps have changed them
FINDER_STEPS = (20, 60)  # at least, for a curve to see a minimum in; and at most, fastai's own resolution


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
    features: Pass | None = None
    precision: str = "off"
    epochs_in_time: Callable[[float], int] | None = None


def fit_phase(learn: Learner, plan: PhasePlan, settings: Settings, on_event: OnEvent, journal: Journal, model: nn.Module, before: Phase | None = None) -> Phase:
    """Train `learn` for one phase and leave it at its best epoch by the chosen metric; keep in the journal the whole `model` as it then is.

    `before` is the phase that brought the model to where it stands: if no epoch of this one is better than its best, the model stays there.
    Raises TrainingError where the loss becomes no number before there is an epoch to keep, KeyboardInterrupt after a Ctrl-C.
    """
    started = time.perf_counter()
    curve = _rates(learn, plan, settings, on_event, journal) if settings.rate is None else None
    plan = _paced(plan, curve, on_event, journal)
    searched = time.perf_counter() - started
    lr = settings.rate or curve.suggestion
    lowest = lr / plan.spread
    reseed(learn, settings.seed)  # the finder has drawn random numbers
    point = getattr(before.epochs[before.best_epoch - 1], settings.metric) if before and before.best_epoch else None
    watch, best, broken = Watch(plan, on_event), KeepBest(settings.metric, settings.patience, point), StopAtNan()
    kept = checkpoints.newest(journal, plan.name)
    with signals.defer_interrupts() as asked, quiet(learn):
        keeper = checkpoints.Checkpoints(journal, plan.name, settings.checkpoint_minutes, asked, on_event, kept)
        callbacks = [watch, best, broken, keeper] + ([checkpoints.PassOver(kept)] if kept else []) + ([MixUp(settings.mixup)] if settings.mixup else [])
        rates = slice(lowest, lr) if plan.spread > 1 else lr
        learn.fit_one_cycle(plan.epochs, rates, cbs=callbacks, start_epoch=kept["epoch"] if kept else 0)
        _check(best, broken, plan, before, lr, on_event)
        per_second = watch.images / watch.seconds if watch.seconds else 0.0
        seconds = searched + keeper.seconds
        phase = Phase(plan.name, lr, lowest, watch.rows, best.best_epoch, seconds, per_second, curve, plan.features, plan.precision)
        checkpoints.finish(journal, phase, model, on_event)
    return phase


def _rates(learn: Learner, plan: PhasePlan, settings: Settings, on_event: OnEvent, journal: Journal) -> RateCurve:
    def search() -> dict[str, Any]:
        reseed(learn, settings.seed)
        return asdict(find_rate(learn, plan, on_event))

    return RateCurve(**journal.once(f"rates of {plan.name}", search))


def _paced(plan: PhasePlan, curve: RateCurve | None, on_event: OnEvent, journal: Journal) -> PhasePlan:
    """Return the plan with as many epochs as end in time, by the steps that the finder took."""
    if not (plan.epochs_in_time and curve and curve.step):
        return plan
    epochs = journal.once(EPOCHS, lambda: plan.epochs_in_time(curve.step))
    if epochs != plan.epochs:
        on_event(Event(plan.name, note=f"{epochs} epochs in place of {plan.epochs}: so many end in time, at {1 / curve.step:,.0f} images/s"))
    return replace(plan, epochs=epochs)


def reseed(learn: Learner, seed: int) -> None:
    """Seed all generators, and that of the loader, which is its own: what a fit draws depends on nothing that went before."""
    set_seed(seed, reproducible=True)
    learn.dls.train.rng = random.Random(seed)


def _check(best: KeepBest, broken: StopAtNan, plan: PhasePlan, before: Phase | None, lr: float, on_event: OnEvent) -> None:
    """Say what became of a fit that has no epoch of its own to keep, or whose loss was no number."""
    lower = f"Try a lower --lr than {lr:.1e}, or --amp off"
    if broken.step and best.state is None:
        raise TrainingError(f"the loss of the {plan.name} was not a number at step {broken.step}, before there was an epoch to keep", lower)
    if broken.step:
        on_event(Event(plan.name, note=f"the loss was not a number at step {broken.step}: stopped there, the best epoch is kept. {lower}"))
    if not best.best_epoch and before:
        found = f"no epoch was better than the {before.name} alone ({best.metric} {best.point:.4f}), which is kept"
        on_event(Event(plan.name, note=f"{found}. Try more --epochs, or a lower --lr than {lr:.1e}"))


def find_rate(learn: Learner, plan: PhasePlan, on_event: OnEvent) -> RateCurve:
    """Run fastai's learning-rate finder; the model is left as it was.

    The suggestion is fastai's `minimum` (a tenth of the rate of the least loss) times the phase's scale, and HIGHEST_RATE at most. Measured on
    FER2013 and seedlings, `valley`, `slide` and `steep` differ tenfold from seed to seed and are often far too low for one cycle.
    """
    name, steps = f"{plan.name}: finding the rate", finder_steps(plan.epochs * len(learn.dls.train))
    watch = Watch(plan, on_event, name, steps)
    with quiet(learn), learn.added_cbs(watch):
        try:
            suggested = learn.lr_find(**FINDER_RANGE, num_it=steps, show_plot=False, suggest_funcs=minimum).minimum
            least = min(plan.customary, edge(learn.recorder.lrs, learn.recorder.losses) / BELOW_EDGE)
            found = min(max(suggested * plan.rate_scale, least), HIGHEST_RATE)
        except (IndexError, ValueError, RuntimeError) as error:
            on_event(Event(name, note=f"the finder failed ({error}); the rate is {FALLBACK_RATE:g}"))
            found = FALLBACK_RATE
    losses = [float(loss) for loss in learn.recorder.losses]
    on_event(Event(name, steps, steps))
    return RateCurve([float(rate) for rate in learn.recorder.lrs], losses, float(found), watch.step_seconds)


def edge(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the highest rate of a finder's curve at which its loss does not yet stand a fifth above its least."""
    values = [float(loss) for loss in losses]
    least = min(values[len(values) // 10 :])  # the first ones are of few batches, which may be easy ones
    return max(rate for rate, loss in zip(rates, values, strict=True) if loss <= CLIMBED * least)


def finder_steps(training_steps: int) -> int:
    """Return how many steps to search: no more than the phase itself will take, within FINDER_STEPS."""
    least, most = FINDER_STEPS
    return min(max(training_steps, least), most)


@contextmanager
def quiet(learn: Learner) -> Iterator[None]:
    """Silence fastai's own table and bar: ours hear of everything through callbacks."""
    with learn.no_bar(), learn.no_logging():
        yield


class Watch(Callback):
    """Reports each step and epoch to `on_event`; counts images and the seconds spent training on them."""

    order = 60  # after Recorder, whose values it reads

    def __init__(self, plan: PhasePlan, on_event: OnEvent, label: str = "", steps: int = 0) -> None:
        self.plan, self.on_event, self.label, self.steps = plan, on_event, label or plan.name, steps
        self.rows: list[EpochRow] = []
        self.ends: list[float] = []  # of steps, where they are counted
        self.images, self.seconds, self.step, self.total = 0, 0.0, 0, 0

    @property
    def step_seconds(self) -> float:
        """Seconds that a step took, an image: the median, for the first ones allocate; 0 if there was but one."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.ends)) * self.step / self.images if self.step > 1 else 0.0

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def before_train(self) -> None:
        self.train_started = time.perf_counter()

    def after_train(self) -> None:
        self.seconds += time.perf_counter() - self.train_started

    def after_batch(self) -> None:
        if not self.training:
            return
        self.step += 1
        if self.steps:
            self.ends.append(time.perf_counter())
        self.images += len(self.learn.yb[0])
        self.total = self.steps or self.plan.epochs * self.n_iter
        self.on_event(Event(self.label, self.step, self.total))

    def after_epoch(self) -> None:
        if self.steps or not self.recorder.values[-1]:  # the finder's epochs are no epochs; others were done before an interruption
            return
        train_loss, valid_loss, accuracy, macro_f1, balanced = (float(value) for value in self.recorder.values[-1])
        seconds = time.perf_counter() - self.started
        row = EpochRow(self.plan.name, len(self.rows) + 1, train_loss, valid_loss, accuracy, macro_f1, balanced, seconds)
        self.rows.append(row)
        self.on_event(Event(self.plan.name, self.step, self.total, row))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows], "images": self.images, "seconds": self.seconds, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [EpochRow(**row) for row in state["rows"]]
        self.images, self.seconds, self.step = state["images"], state["seconds"], state["step"]


class StopAtNan(Callback):
    """Ends a fit whose loss is no finite number any more, for nothing that follows would be one."""

    order = 63  # before a checkpoint could be made of it
    run_valid = False

    def before_fit(self) -> None:
        self.step = 0

    def after_batch(self) -> None:
        if not torch.isfinite(self.loss):
            self.step = self.train_iter
            raise CancelFitException


class KeepBest(TrackerCallback):
    """Ends the fit with the weights of the best epoch, and ends it early after `patience` epochs without a better one.

    fastai's SaveModelCallback and EarlyStoppingCallback do this too, but print to stdout, where `--json` writes.
    """

    order = 61

    def __init__(self, metric: str, patience: int | None, point: float | None = None) -> None:
        super().__init__(monitor=MONITORS[metric])
        self.metric, self.patience, self.point = metric, patience, point
        self.best_epoch, self.state, self.epochs = 0, None, 0

    def before_fit(self) -> None:
        super().before_fit()
        self.best_epoch, self.state, self.epochs = 0, None, 0
        if self.point is not None:  # what is there already is to be beaten
            self.best, self.state = self.point, copy.deepcopy(self.learn.model.state_dict())

    def after_epoch(self) -> None:
        if not self.recorder.values[-1]:  # it was done before an interruption
            return
        super().after_epoch()
        self.epochs += 1
        if self.new_best or self.state is None:
            self.best_epoch, self.state = self.epochs, copy.deepcopy(self.learn.model.state_dict())
        elif self.patience and self.epochs - self.best_epoch >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        if self.state is not None:
            self.learn.model.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        return {"best": float(self.best), "best_epoch": self.best_epoch, "epochs": self.epochs, "state": self.state or {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.epochs, self.state = state["best"], state["best_epoch"], state["epochs"], state["state"] or None


def class_weights(labels: list[int], classes: int) -> torch.Tensor:
    """Return n / (c * count) for each class, `[c]`: scikit-learn's "balanced" weights."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
    return len(labels) / (classes * counts)
