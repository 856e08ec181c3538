"""`--depth auto` and `--minutes`: each depth is timed on this machine, its training predicted, and the deepest that pays or fits is taken."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from .activations import HEAD_IMAGES, ActivationLoader, affordable, gigabytes, shape_of
from .bench import Bench
from .features import Part, image_counts, unmade
from .fitting import FINDER_STEPS, quiet
from .folding import folded
from .learner import feature_count, network_input
from .optimizer import adam
from .probe import ADAPTING_BATCHES, head_batch
from .results import Choice, Event, OnEvent
from .settings import Settings
from .stages import divided, stages
from .unfinished import Journal

AUTO_SHARE = 0.45  # of full fine-tuning's time, that `--depth auto` may take
MOST_DEPTHS = 8  # that are timed
STEPS = 6  # that a depth is timed by, after a first one that allocates: of 3 the median strayed by a quarter
SLOW = 0.5  # seconds of a step beyond which a smaller batch is timed instead
SMALL_BATCH = 8
FEATURES = 20_000  # of which a head's batch is timed
PARTIAL, FULL = "0", "all"  # the ends of the scale
NEARLY_ALL, HALF = 7 / 8, 1 / 2  # of the epochs that were to be
NOISE = 1.3  # times the speed of a depth that trains more: so far off no quiet machine's timings are
CLOSING = 10.0  # seconds of export, plots and files at the end of a training


@dataclass(frozen=True)
class _Timing:
    """What a depth costs: seconds an image of a training step, of the frozen part's pass and of the trained part's.

    Of each view: `unmade` images that the frozen part must yet be run on, and `gigabytes` that are kept of it.
    """

    depth: str
    trains: str
    step: float
    lower: float
    upper: float
    unmade: Sequence[int]
    gigabytes: Sequence[float] = ()


@dataclass(frozen=True)
class _Work:
    """How much there is to do: images to train on and to judge by; seconds gone by so far.

    `augment` and `head` are seconds: of augmenting an image, and of a training step of the head for one image's features.
    """

    train: int
    valid: int
    gone: float
    augment: float
    head: float


def settled(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal) -> tuple[Settings, list[Choice]]:
    """Return the settings with a depth, views and epochs where they were left to be chosen, and what there was to choose from.

    What an interrupted training had decided stays so. Raises UsageError where the backbone
    cannot be divided, or there is no room for what is to be kept.
    """
    plan: list[Choice] = []
    if settings.strategy == "middle" and (settings.depth == "auto" or settings.minutes is not None):
        asked = settings

        def choose() -> list[dict[str, Any]]:
            return [asdict(choice) for choice in choices(bench, asked, journal.seconds, on_event)]

        plan = [Choice(**values) for values in journal.once("plan", choose)]
        on_event(Event("depth", plan=plan))
        settings = _chosen(settings, next(choice for choice in plan if choice.chosen))
    if settings.strategy == "middle":
        wanted = settings
        depth, views = journal.once("room", lambda: affordable(bench, wanted))
        settings = replace(settings, depth=depth, views=views)
        if settings != wanted:
            found = f"what --depth {wanted.depth} keeps of {wanted.views} views takes more room than there is"
            on_event(Event("depth", note=f"{found}: it is --depth {depth} and {views} views"))
    return settings, plan


def choices(bench: Bench, settings: Settings, gone: float, on_event: OnEvent) -> list[Choice]:
    """Return what each depth would take, the shallowest first, one of them chosen. `gone` counts the seconds of the training so far.

    With `settings.minutes` views and epochs are as many as the time allows, the settings' at the most; without, they are the settings' own.
    """
    started = time.perf_counter()
    timings, head = _timings(bench, settings, on_event)
    train, valid = (len(bench.table.part(part)) for part in ("train", "valid"))
    augment = _augmenting(bench.learn)
    work = _Work(train, valid, gone + time.perf_counter() - started, augment, head)
    if settings.minutes is None:
        found = [_predicted(timing, timings[-1], work, settings) for timing in timings]
        limit = AUTO_SHARE * found[-1].seconds
    else:
        limit = 60 * settings.minutes
        found = [_fitted(timing, timings[-1], work, settings, limit) for timing in timings]
    _warn_of_noise(found, on_event)
    fixed = settings.depth.isdigit()
    asked = [i for i, choice in enumerate(found) if not fixed or choice.depth == settings.depth]
    fitting = [i for i in asked if found[i].epochs and found[i].seconds <= limit]
    if fitting:
        best = _best(found, fitting, settings.epochs)
    else:  # the quickest of all is the least that can be done
        best = asked[0]
        found[best] = _predicted(timings[best], timings[-1], work, replace(settings, views=1, epochs=1 if fixed else settings.epochs))
        nothing, least = (
            (f"--depth {settings.depth} does not end", f"one epoch of --depth {settings.depth}") if fixed else ("no depth ends", "the classifier alone")
        )
        on_event(Event("depth", note=f"{nothing} within {limit / 60:.1f} minutes; {least} takes {found[best].seconds / 60:.1f}"))
    return [replace(choice, chosen=i == best) for i, choice in enumerate(found)]


def _warn_of_noise(found: Sequence[Choice], on_event: OnEvent) -> None:
    """Say so where less to train took longer, which only other work on the machine can explain."""
    for less, more in pairwise(found[1:]):  # the classifier's step is of features
        if less.images_per_second * NOISE < more.images_per_second:
            speeds = f"depth {less.depth} {less.images_per_second:,.0f} images/s, depth {more.depth} {more.images_per_second:,.0f}"
            on_event(Event("depth", note=f"the timings contradict each other ({speeds}): if other work is running, the plan is worth little"))
            return


def _best(found: Sequence[Choice], fitting: Sequence[int], epochs: int) -> int:
    """Return the place of the depth to take: the deepest with nearly all its epochs if that is the middle or deeper, else the deepest with some.

    From the middle up epochs are worth more than stages, below it not: of FER2013 8 epochs of four stages of seven or of all layers learned as much
    (0.648 and 0.649, 0.650), 6 or 7 epochs of all layers less (0.635, 0.643); 4 epochs of four stages (0.641 with one view, 0.630 with four) what 8
    of three did (0.629 with two, 0.636 with four).
    """
    whole = [i for i in fitting if found[i].epochs >= NEARLY_ALL * epochs and 2 * i >= len(found) - 1]
    return max(whole or fitting)


def _chosen(settings: Settings, choice: Choice) -> Settings:
    """Return the settings of a choice, as if its depth, views and epochs had been typed."""
    strategy, depth = {PARTIAL: ("partial", ""), FULL: ("full", "")}.get(choice.depth, ("middle", choice.depth))
    return replace(settings, strategy=strategy, depth=depth, views=choice.views, epochs=choice.epochs, minutes=None)


# Predicting


def _fitted(timing: _Timing, whole: _Timing, work: _Work, settings: Settings, limit: float) -> Choice:
    """Return a depth's plan with nearly all epochs and as many views as end in time, else with fewer epochs; none where not half of them end."""
    affordable_epochs = {}
    for views in sorted({settings.views, min(2, settings.views), 1}, reverse=True):
        one, two = (_predicted(timing, whole, work, replace(settings, views=views, epochs=epochs)) for epochs in (1, 2))
        spare, epoch = limit - one.seconds, two.seconds - one.seconds
        epochs = 1 + math.floor(spare / epoch) if epoch else settings.epochs * (spare >= 0)  # a head's are not varied
        affordable_epochs[views] = min(epochs, settings.epochs)
    for share in (NEARLY_ALL, HALF):
        for views, epochs in affordable_epochs.items():
            if epochs >= max(1, share * settings.epochs):
                return _predicted(timing, whole, work, replace(settings, views=views, epochs=epochs))
    return replace(one, epochs=0)


def _predicted(timing: _Timing, whole: _Timing, work: _Work, settings: Settings) -> Choice:
    """Predict a training of some depth from its beginning to its end, with the settings' views and epochs."""
    partial, full = timing.depth == PARTIAL, timing.depth == FULL
    views = min(settings.views, Settings.views) if full else settings.views
    epochs = max(settings.epochs, Settings.epochs) if partial else settings.epochs  # those of a head cost little
    kept = timing.lower if not full else whole.upper
    plain, *varied = timing.unmade[:views]
    seconds = work.gone + plain * kept + sum(varied) * (kept + work.augment)
    starts = work.train * views if partial or full else min(work.train, HEAD_IMAGES)
    seconds += _head_seconds(work, settings, starts, epochs if partial else settings.freeze_epochs)
    if not partial:
        seconds += ADAPTING_BATCHES * settings.bs * (whole.upper + work.augment if full else timing.upper)
        seconds += (starts + work.valid) * timing.upper if not full else 0.0
        step = timing.step + (work.augment if full else 0.0)
        seconds += _searching(settings) * settings.bs * step + epochs * (work.train * step + work.valid * timing.upper)
    seconds += work.valid * whole.upper + CLOSING
    return Choice(timing.depth, timing.trains, 1 / timing.step, sum(timing.gigabytes[:views]), views, epochs, seconds)


def _head_seconds(work: _Work, settings: Settings, features: int, epochs: int) -> float:
    return work.head * (epochs * (features + work.valid) + _searching(settings) * head_batch(features, settings.bs))


def _searching(settings: Settings) -> int:
    return FINDER_STEPS[1] if settings.rate is None else 0


# Timing


def _timings(bench: Bench, settings: Settings, on_event: OnEvent) -> tuple[list[_Timing], float]:
    """Time each depth on noise, with a copy of the network; return also the seconds an image of the head alone."""
    learn, counts = bench.learn, image_counts(bench.table, settings)
    body, head = copy.deepcopy(learn.model)
    names = stages(body, settings.arch)
    depths = sorted({round(i) for i in np.linspace(1, len(names), min(len(names), MOST_DEPTHS))})
    depths = [int(settings.depth)] if settings.depth.isdigit() else depths
    image = (3, settings.size, settings.size)
    device, bs = learn.dls.device, settings.bs
    plain = _forward(body, image, bs, device)
    gain = _forward(folded(body), image, bs, device) / plain
    width = feature_count(body, settings.size)
    found = [_Timing(PARTIAL, "the classifier", 0.0, gain * plain, 0.0, unmade(body, bench, settings), _gigabytes((width,), counts, settings))]
    for done, depth in enumerate(depths):
        on_event(Event("timing depths", done, len(depths) + 1))
        parts = divided(body, settings.arch, depth, settings.size)
        shape, lower = shape_of(parts, settings.size), _forward(parts.lower, image, bs, device)
        step = _step(learn, nn.Sequential(parts.upper, head), shape, bs)
        room = unmade(parts.lower, bench, settings), _gigabytes(shape, counts, settings)
        found.append(_Timing(str(depth), f"{names[-depth]} and above", step, gain * lower, max(0.0, plain - lower), *room))
    on_event(Event("timing depths", len(depths), len(depths) + 1))
    found.append(_Timing(FULL, "all layers", _step(learn, nn.Sequential(body, head), image, bs), 0.0, plain, counts))  # its statistics are adapted first
    on_event(Event("timing depths", len(depths) + 1, len(depths) + 1))
    per_feature = _step(learn, head, (width,), head_batch(FEATURES, bs))
    return [replace(found[0], step=per_feature), *found[1:]], per_feature


def _gigabytes(shape: tuple[int, ...], counts: Sequence[int], settings: Settings) -> list[float]:
    return [gigabytes(shape, count, settings) for count in counts]


@torch.inference_mode()
def _forward(network: nn.Module, shape: tuple[int, ...], bs: int, device: torch.device) -> float:
    """Return the seconds an image of a pass without training: the median of some."""
    network.eval()
    x, seconds = network_input(torch.rand(min(bs, SMALL_BATCH), *shape, device=device)), []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        network(x)
        _wait(device)
        seconds.append(time.perf_counter() - started)
        if len(seconds) == 1 and seconds[0] < SLOW * len(x) / bs:
            x = network_input(torch.rand(bs, *shape, device=device))
    return statistics.median(seconds[1:]) / len(x)


def _step(learn: Learner, model: nn.Module, shape: tuple[int, ...], bs: int) -> float:
    """Return the seconds an image of a training step, by the loader, loop and optimizer that train; of a smaller batch where a step takes long."""
    small = _step_of(learn, model, shape, min(bs, SMALL_BATCH))
    return small if bs <= SMALL_BATCH or small * bs > SLOW else _step_of(learn, model, shape, bs)


def _step_of(learn: Learner, model: nn.Module, shape: tuple[int, ...], bs: int) -> float:
    device, count = learn.dls.device, bs * (STEPS + 1)
    noise = Part([np.random.default_rng(0).random((count, *shape), np.float32).astype(np.float16)], [np.arange(count)], torch.arange(count) % learn.dls.c)
    loaders = DataLoaders(ActivationLoader(noise, bs, True, device), ActivationLoader(noise, bs, False, device), device=device)
    clock = _Clock()
    everything = {"splitter": lambda model: [list(model.parameters())], "path": learn.path, "model_dir": learn.model_dir}
    own = Learner(loaders, model, learn.loss_func, adam, cbs=clock, **everything)
    with quiet(own):
        own.fit(1, lr=0.0)
    return statistics.median(later - earlier for earlier, later in pairwise(clock.times)) / bs  # the least is 7 to 10 % less than a training has


class _Clock(Callback):
    """Notes when each step of a fit ended, and ends it after the last."""

    def before_fit(self) -> None:
        self.times: list[float] = []

    def after_batch(self) -> None:
        _wait(self.dls.device)
        self.times.append(time.perf_counter())
        if len(self.times) > STEPS:
            raise CancelFitException


def _augmenting(learn: Learner) -> float:
    """Return the seconds an image of taking and augmenting a training batch."""
    loader, seconds = learn.dls.train, []
    drawn = loader.rng.getstate()
    batches = iter(loader)
    for _ in range(min(STEPS + 1, len(loader))):
        started = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - started)
    loader.rng.setstate(drawn)  # a training that need not choose draws the same
    return min(seconds) / loader.bs


def _wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
