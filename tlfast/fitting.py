"""One phase of a training: find the rate, fit one cycle, keep the best epoch, say how it goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import fastai.callback.progress  # noqa: F401 (gives a Learner no_bar)
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import minimum
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import set_seed

from .results import EpochRow, Event, OnEvent, Phase, RateCurve
from .settings import Settings

# Our names of the metrics -> fastai's.
MONITORS = {"accuracy": "accuracy", "macro_f1": "f1_score", "balanced_accuracy": "balanced_accuracy_score", "valid_loss": "valid_loss"}
FALLBACK_RATE = 1e-3  # where the finder sees no minimum: Adam's customary rate
HIGHEST_RATE = 7e-3  # beyond it Adam forgets what was pretrained, however well the finder's few steps went
FINDER_RANGE = {"start_lr": 1e-5, "end_lr": 1.0}  # fastai's own, without the three decades in which nothing moves
FINDER_STEPS = (20, 60)  # at least, for a curve to see a minimum in; and at most, fastai's own resolution


@dataclass(frozen=True)
class PhasePlan:
    """What one phase does. `spread` divides the rate for the lowest group of parameters; `rate_scale` multiplies the finder's `minimum`."""

    name: str
    epochs: int
    spread: float = 1.0
    rate_scale: float = 1.0


def fit_phase(learn: Learner, plan: PhasePlan, settings: Settings, on_event: OnEvent, before: Phase | None = None) -> Phase:
    """Train `learn` for one phase and leave it at its best epoch by the chosen metric.

    `before` is the phase that brought the model to where it stands: if no epoch of this one is better than its best, the model stays there.
    """
    started = time.perf_counter()
    curve = None
    if settings.rate is None:
        set_seed(settings.seed, reproducible=True)
        curve = find_rate(learn, plan, on_event)
    lr = settings.rate or curve.suggestion
    set_seed(settings.seed, reproducible=True)  # the finder has drawn random numbers
    start = getattr(before.epochs[before.best_epoch - 1], settings.metric) if before else None
    watch, best = Watch(plan, on_event), KeepBest(settings.metric, settings.patience, start)
    callbacks = [watch, best] + ([MixUp(settings.mixup)] if settings.mixup else [])
    lowest = lr / plan.spread
    with quiet(learn):
        learn.fit_one_cycle(plan.epochs, slice(lowest, lr) if plan.spread > 1 else lr, cbs=callbacks)
    if not best.best_epoch:
        on_event(Event(plan.name, note=f"no epoch was better than the {before.name} alone ({settings.metric} {start:.4f}), which is kept; try a lower --lr"))
    per_second = watch.images / watch.seconds if watch.seconds else 0.0
    return Phase(plan.name, lr, lowest, watch.rows, best.best_epoch, time.perf_counter() - started, per_second, curve)


def find_rate(learn: Learner, plan: PhasePlan, on_event: OnEvent) -> RateCurve:
    """Run fastai's learning-rate finder; the model is left as it was.

    The suggestion is fastai's `minimum` (a tenth of the rate of the least loss) times the phase's scale, and HIGHEST_RATE at most. Measured on
    FER2013 and seedlings, `valley`, `slide` and `steep` differ tenfold from seed to seed and are often far too low for one cycle.
    """
    name, steps = f"{plan.name}: finding the rate", finder_steps(plan.epochs * len(learn.dls.train))
    with quiet(learn), learn.added_cbs(Watch(plan, on_event, name, steps)):
        try:
            suggested = learn.lr_find(**FINDER_RANGE, num_it=steps, show_plot=False, suggest_funcs=minimum).minimum
            found = min(suggested * plan.rate_scale, HIGHEST_RATE)
        except (IndexError, ValueError, RuntimeError) as error:
            on_event(Event(name, note=f"the finder failed ({error}); the rate is {FALLBACK_RATE:g}"))
            found = FALLBACK_RATE
    losses = [float(loss) for loss in learn.recorder.losses]
    on_event(Event(name, steps, steps))
    return RateCurve([float(rate) for rate in learn.recorder.lrs], losses, float(found))


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
        self.images, self.seconds, self.step, self.total = 0, 0.0, 0, 0

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
        self.images += len(self.learn.yb[0])
        self.total = self.steps or self.plan.epochs * self.n_iter
        self.on_event(Event(self.label, self.step, self.total))

    def after_epoch(self) -> None:
        if self.steps:  # the finder's epochs are no epochs
            return
        train_loss, valid_loss, accuracy, macro_f1, balanced = (float(value) for value in self.recorder.values[-1])
        seconds = time.perf_counter() - self.started
        row = EpochRow(self.plan.name, len(self.rows) + 1, train_loss, valid_loss, accuracy, macro_f1, balanced, seconds)
        self.rows.append(row)
        self.on_event(Event(self.plan.name, self.step, self.total, row))


class KeepBest(TrackerCallback):
    """Ends the fit with the weights of the best epoch, and ends it early after `patience` epochs without a better one.

    fastai's SaveModelCallback and EarlyStoppingCallback do this too, but print to stdout, where `--json` writes.
    """

    order = 61

    def __init__(self, metric: str, patience: int | None, start: float | None = None) -> None:
        super().__init__(monitor=MONITORS[metric])
        self.patience, self.start, self.best_epoch, self.state, self.epochs = patience, start, 0, None, 0

    def before_fit(self) -> None:
        super().before_fit()
        self.best_epoch, self.state, self.epochs = 0, None, 0
        if self.start is not None:  # what is there already is to be beaten
            self.best, self.state = self.start, copy.deepcopy(self.learn.model.state_dict())

    def after_epoch(self) -> None:
        super().after_epoch()
        self.epochs += 1
        if self.new_best or self.state is None:
            self.best_epoch, self.state = self.epochs, copy.deepcopy(self.learn.model.state_dict())
        elif self.patience and self.epochs - self.best_epoch >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        if self.state is not None:
            self.learn.model.load_state_dict(self.state)


def class_weights(labels: list[int], classes: int) -> torch.Tensor:
    """Return n / (c * count) for each class, `[c]`: scikit-learn's "balanced" weights."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
    return len(labels) / (classes * counts)
