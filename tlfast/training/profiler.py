"""Measured costs of training to each depth on this machine: training steps and forward passes on noise, timed in turns."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from ..core import OnEvent, Progress, Settings, TrainingError
from ..core.setting_checks import AUTO_DEPTH, DEPTH_ENDS
from ..models import count_features, is_out_of_memory, list_stages, release_device_memory, split_at, synchronize, to_network_input
from ..models.fuse_bn import fuse_bn
from .activations import ActivationLoader, activation_gigabytes, activation_shape
from .amp import autocast_passes, choose_pass_precision, choose_step_precision, use_precision
from .callbacks.progress import silence_fastai
from .feature_learner import choose_head_batch
from .features import SplitFeatures, count_images, count_missing
from .optim import build_adam
from .session import Session
from .types import MIN_BATCH, Timing, Timings

MAX_DEPTHS = 8  # depths that are timed
ROUNDS, REPEATS = 3, 2  # the speed of a machine drifts, so each operation is timed in every round; see docs/benchmarks.md, "Planner"
MAX_STEP_SECONDS = 0.5  # seconds of a step; if a batch takes longer, a smaller one is timed
SMALL_BATCH = 8  # smallest batch that is timed if it fits into memory
FEATURES = 20_000  # number of features whose head batch is timed
PARTIAL, FULL = "0", "all"  # ends of the scale of `--depth`
Stopwatch = Callable[[], list[float]]  # runs an operation some times; returns the seconds per image of each


def time_depths(session: Session, settings: Settings, time_limit: float) -> Timings:
    """Time the ends of the scale on a copy of the network, and the depths between; if the settings name a depth, only that one.

    No round but the first begins after `time_limit` seconds. Raises UsageError if the backbone cannot be divided.
    """
    started = time.perf_counter()
    learn, counts, device = session.learn, count_images(session.table, settings), session.learn.dls.device
    body, head = copy.deepcopy(learn.model)
    names = [] if settings.depth in ("", *DEPTH_ENDS) else list_stages(body, settings.arch)  # some backbones declare none
    depths = sorted({round(i) for i in np.linspace(1, len(names), min(len(names), MAX_DEPTHS))})
    if settings.depth != AUTO_DEPTH:
        depths = [int(settings.depth)] if settings.depth.isdigit() and settings.depth not in DEPTH_ENDS else []
    parts = {depth: split_at(body, settings.arch, depth, settings.size) for depth in depths}
    shapes = {depth: activation_shape(parts[depth], settings.size) for depth in parts}
    image, width = (3, settings.size, settings.size), count_features(body, settings.size)
    precision = choose_pass_precision(body, device, settings, image)
    # Counted before training steps change the statistics of BatchNorm, by which features are named.
    uncached = count_missing(body, session, settings)
    uncached_lower = {depth: count_missing(parts[depth].lower, session, settings) for depth in shapes}
    watches: dict[str, Stopwatch] = {
        "plain": time_passes(body, image, settings.bs, device, precision),
        "fused": time_passes(fuse_bn(body), image, settings.bs, device, precision),
        "augment": lambda: time_loading(learn),
        "head": lambda: run_steps(learn, head, (width,), choose_head_batch(FEATURES, settings.bs)),
        "step": _time_steps(learn, nn.Sequential(body, head), image, settings),
    }
    uncached_teacher: list[int] = []
    if session.teacher is not None:
        taught = replace(settings, cache_format="fp16", amp=cast(Any, choose_pass_precision(session.teacher, device, settings, image)))
        uncached_teacher = count_missing(session.teacher, session, taught)
        watches["teacher"] = time_passes(session.teacher, image, settings.bs, device, taught.amp)
    for depth, shape in shapes.items():
        watches[f"lower {depth}"] = time_passes(parts[depth].lower, image, settings.bs, device, precision)
        watches[f"step {depth}"] = _time_steps(learn, nn.Sequential(parts[depth].upper, head), shape, settings)
    seconds = _run_in_turns(watches, started + time_limit, session.on_event)
    plain, fused_share = seconds["plain"], seconds["fused"] / seconds["plain"]

    def cached_gigabytes(shape: tuple[int, ...]) -> list[float]:
        return [activation_gigabytes(shape, count, settings) for count in counts]

    timings = [Timing(PARTIAL, "the classifier", seconds["head"], fused_share * plain, 0.0, uncached, cached_gigabytes((width,)))]
    for depth, shape in shapes.items():
        lower, trains = seconds[f"lower {depth}"], f"{names[-depth]} and above"
        step, upper = seconds[f"step {depth}"], max(0.0, plain - lower)
        timings.append(Timing(str(depth), trains, step, fused_share * lower, upper, uncached_lower[depth], cached_gigabytes(shape)))
    timings.append(Timing(FULL, "all layers", seconds["step"], 0.0, plain, counts))  # adapted BatchNorm statistics invalidate cached features
    return Timings(timings, seconds["augment"], seconds["head"], seconds.get("teacher", 0.0), uncached_teacher)


def _run_in_turns(watches: Mapping[str, Stopwatch], until: float, on_event: OnEvent) -> dict[str, float]:
    """Run all stopwatches in turns, in up to ROUNDS rounds; return the median of each. No round but the first begins after the time `until`."""
    seconds: dict[str, list[float]] = {name: [] for name in watches}
    total = ROUNDS * len(watches)
    for number in range(ROUNDS):
        if number and time.perf_counter() > until:
            break
        for i, (name, watch) in enumerate(watches.items()):
            on_event(Progress("timing depths", number * len(watches) + i, total))
            seconds[name] += watch()
    on_event(Progress("timing depths", total, total))
    return {name: statistics.median(values) for name, values in seconds.items()}


def time_passes(network: nn.Module, shape: tuple[int, ...], bs: int, device: torch.device, precision: str) -> Stopwatch:
    """Return a stopwatch of forward passes in a precision, for input `[b, *shape]`."""

    @torch.inference_mode()
    def run_passes(count: int) -> list[float]:
        network.eval()
        x, seconds = to_network_input(torch.rand(count, *shape, device=device)), []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            with autocast_passes(device, precision):
                network(x)
            synchronize(device)
            seconds.append((time.perf_counter() - started) / count)
        return seconds[1:]  # the first pass allocates memory

    return _time_batches(run_passes, bs, device)


def _time_steps(learn: Learner, model: nn.Module, shape: tuple[int, ...], settings: Settings) -> Stopwatch:
    """Return a stopwatch of training steps in the precision of a training, for input `[b, *shape]`."""
    precision = choose_step_precision(model, learn.dls.device, settings, shape)
    return _time_batches(lambda count: run_steps(learn, model, shape, count, precision), settings.bs, learn.dls.device)


def _time_batches(run: Callable[[int], list[float]], bs: int, device: torch.device) -> Stopwatch:
    """Return a stopwatch of `run`, which takes a batch size, with at most `bs` images in a batch.

    A step shall not exceed MAX_STEP_SECONDS by the measurement of a small batch. If memory runs out, the batch is halved, as a training does it.
    Raises TrainingError if memory does not suffice for MIN_BATCH images.
    """
    count = min(bs, SMALL_BATCH)

    def measure() -> list[float]:
        nonlocal count
        while True:
            try:
                return run(count)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if count <= MIN_BATCH:
                    raise TrainingError(f"out of memory on {device} while steps with {count} images were timed", "Use a smaller --size or --arch") from None
            count = max(MIN_BATCH, count // 2)
            gc.collect()  # the Learner of the failed steps refers to itself
            release_device_memory(device)

    seconds = statistics.median(measure())
    count = min(bs, max(count, int(MAX_STEP_SECONDS / seconds)))
    return measure


def run_steps(learn: Learner, model: nn.Module, shape: tuple[int, ...], bs: int, precision: str = "off") -> list[float]:
    """Return the seconds per image of some training steps on noise, with the loader, loop and optimizer of a training."""
    device, count = learn.dls.device, bs * (REPEATS + 1)
    values = np.random.default_rng(0).random((bs, *shape), np.float32).astype(np.float16)
    noise = SplitFeatures([values], [np.arange(count) % bs], torch.arange(count) % learn.dls.c)
    loaders = DataLoaders(ActivationLoader(noise, bs, True, device), ActivationLoader(noise, bs, False, device), device=device)
    clock = _StepClock()
    options = {"splitter": lambda model: [list(model.parameters())], "path": learn.path, "model_dir": learn.model_dir}
    timed = Learner(loaders, model, learn.loss_func, build_adam, cbs=clock, **options)
    with silence_fastai(timed), use_precision(timed, precision):
        timed.fit(1, lr=0.0)
    return [(later - earlier) / bs for earlier, later in pairwise(clock.times)]


class _StepClock(Callback):
    """Record the time at the end of each step, and stop the fit after REPEATS + 1 steps."""

    def before_fit(self) -> None:
        self.times: list[float] = []

    def after_batch(self) -> None:
        synchronize(self.dls.device)
        self.times.append(time.perf_counter())
        if len(self.times) > REPEATS:
            raise CancelFitException


def time_loading(learn: Learner) -> list[float]:
    """Return the seconds per image of loading and augmenting some training batches, finished on the device."""
    loader, seconds = learn.dls.train, []
    state = loader.rng.getstate()
    batches = iter(loader)
    for _ in range(min(REPEATS + 1, len(loader))):
        started = time.perf_counter()
        next(batches)
        synchronize(learn.dls.device)
        seconds.append((time.perf_counter() - started) / loader.bs)
    loader.rng.setstate(state)  # so that a training without timing draws the same numbers
    return seconds[1:] or seconds
