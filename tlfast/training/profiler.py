"""What each depth's training costs on this machine: its steps and passes are timed on noise, all of them in turns."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from ..core.events import OnEvent, Progress
from ..core.settings import Settings
from ..models.build import count_features, to_network_input
from ..models.fuse_bn import fuse_bn
from ..models.stages import list_stages, split_at
from .activations import ActivationLoader, activation_gigabytes, activation_shape
from .callbacks.progress import silence_fastai
from .features import Part, count_images, count_missing
from .head import choose_head_batch
from .optim import build_adam
from .session import Session
from .types import Timing, Timings

MOST_DEPTHS = 8  # that are timed
ROUNDS, REPEATS = 3, 2  # a machine's speed drifts within seconds by a quarter: each thing is timed in every round, so often beside a first time
LONGEST = 0.5  # seconds of a step: where a batch would take longer, a smaller one is timed
SMALL_BATCH = 8  # the smallest: on small images so few take up to twice as long, each
FEATURES = 20_000  # of which a head's batch is timed
PARTIAL, FULL = "0", "all"  # the ends of the scale
Stopwatch = Callable[[], list[float]]  # runs something some times, and tells the seconds an image that each took


def time_depths(session: Session, settings: Settings, enough: float) -> Timings:
    """Time each depth with a copy of the network, or the one depth that the settings name, and the ends of the scale.

    After `enough` seconds no other round of it begins.
    """
    began = time.perf_counter()
    learn, counts, device = session.learn, count_images(session.table, settings), session.learn.dls.device
    body, head = copy.deepcopy(learn.model)
    names = list_stages(body, settings.arch)
    depths = sorted({round(i) for i in np.linspace(1, len(names), min(len(names), MOST_DEPTHS))})
    parts = {depth: split_at(body, settings.arch, depth, settings.size) for depth in ([int(settings.depth)] if settings.depth.isdigit() else depths)}
    shapes = {depth: activation_shape(parts[depth], settings.size) for depth in parts}
    image, width = (3, settings.size, settings.size), count_features(body, settings.size)
    watches: dict[str, Stopwatch] = {
        "plain": _time_passes(body, image, settings.bs, device),
        "folded": _time_passes(fuse_bn(body), image, settings.bs, device),
        "augment": lambda: _time_augmentation(learn),
        "head": lambda: _run_steps(learn, head, (width,), choose_head_batch(FEATURES, settings.bs)),
        "step": _time_steps(learn, nn.Sequential(body, head), image, settings.bs),
    }
    for depth, shape in shapes.items():
        watches[f"lower {depth}"] = _time_passes(parts[depth].lower, image, settings.bs, device)
        watches[f"step {depth}"] = _time_steps(learn, nn.Sequential(parts[depth].upper, head), shape, settings.bs)
    seconds = _run_in_turns(watches, began + enough, session.on_event)
    plain, gain = seconds["plain"], seconds["folded"] / seconds["plain"]

    def kept(shape: tuple[int, ...]) -> list[float]:
        return [activation_gigabytes(shape, count, settings) for count in counts]

    found = [Timing(PARTIAL, "the classifier", seconds["head"], gain * plain, 0.0, count_missing(body, session, settings), kept((width,)))]
    for depth, shape in shapes.items():
        lower, to_make = seconds[f"lower {depth}"], count_missing(parts[depth].lower, session, settings)
        trains = f"{names[-depth]} and above"
        found.append(Timing(str(depth), trains, seconds[f"step {depth}"], gain * lower, max(0.0, plain - lower), to_make, kept(shape)))
    found.append(Timing(FULL, "all layers", seconds["step"], 0.0, plain, counts))  # its statistics are adapted first: no earlier features fit
    return Timings(found, seconds["augment"], seconds["head"])


def _run_in_turns(watches: Mapping[str, Stopwatch], until: float, on_event: OnEvent) -> dict[str, float]:
    """Return the median of what each watch says in all rounds; none begins but the first when it is past `until`."""
    seconds: dict[str, list[float]] = {name: [] for name in watches}
    total = ROUNDS * len(watches)
    for number in range(ROUNDS):
        if number and time.perf_counter() > until:
            break
        for i, (name, watch) in enumerate(watches.items()):
            on_event(Progress("timing depths", number * len(watches) + i, total))
            seconds[name] += watch()
    on_event(Progress("timing depths", total, total))
    return {name: statistics.median(each) for name, each in seconds.items()}


def _time_passes(network: nn.Module, shape: tuple[int, ...], bs: int, device: torch.device) -> Stopwatch:
    """Return what tells the seconds an image of some passes without training."""

    @torch.inference_mode()
    def passes(count: int) -> list[float]:
        network.eval()
        x, seconds = to_network_input(torch.rand(count, *shape, device=device)), []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            network(x)
            _synchronize(device)
            seconds.append((time.perf_counter() - started) / count)
        return seconds[1:]

    count = _choose_batch(passes, bs)
    return lambda: passes(count)


def _time_steps(learn: Learner, model: nn.Module, shape: tuple[int, ...], bs: int) -> Stopwatch:
    """Return what tells the seconds an image of some training steps, of a smaller batch where a step takes long."""
    count = _choose_batch(lambda count: _run_steps(learn, model, shape, count), bs)
    return lambda: _run_steps(learn, model, shape, count)


def _choose_batch(seconds: Callable[[int], list[float]], bs: int) -> int:
    """Return how many of `bs` images to time at once, from the seconds an image of a few."""
    small = min(bs, SMALL_BATCH)
    return min(bs, max(small, int(LONGEST / statistics.median(seconds(small)))))


def _run_steps(learn: Learner, model: nn.Module, shape: tuple[int, ...], bs: int) -> list[float]:
    """Return the seconds an image of some training steps, by the loader, loop and optimizer that train."""
    device, count = learn.dls.device, bs * (REPEATS + 1)
    noise = Part([np.random.default_rng(0).random((count, *shape), np.float32).astype(np.float16)], [np.arange(count)], torch.arange(count) % learn.dls.c)
    loaders = DataLoaders(ActivationLoader(noise, bs, True, device), ActivationLoader(noise, bs, False, device), device=device)
    clock = _StepClock()
    everything = {"splitter": lambda model: [list(model.parameters())], "path": learn.path, "model_dir": learn.model_dir}
    own = Learner(loaders, model, learn.loss_func, build_adam, cbs=clock, **everything)
    with silence_fastai(own):
        own.fit(1, lr=0.0)
    return [(later - earlier) / bs for earlier, later in pairwise(clock.times)]


class _StepClock(Callback):
    """Notes when each step of a fit ended, and ends it after the last."""

    def before_fit(self) -> None:
        self.times: list[float] = []

    def after_batch(self) -> None:
        _synchronize(self.dls.device)
        self.times.append(time.perf_counter())
        if len(self.times) > REPEATS:
            raise CancelFitException


def _time_augmentation(learn: Learner) -> list[float]:
    """Return the seconds an image of taking and augmenting some training batches."""
    loader, seconds = learn.dls.train, []
    drawn = loader.rng.getstate()
    batches = iter(loader)
    for _ in range(min(REPEATS + 1, len(loader))):
        started = time.perf_counter()
        next(batches)
        seconds.append((time.perf_counter() - started) / loader.bs)
    loader.rng.setstate(drawn)  # a training that need not choose draws the same
    return seconds[1:] or seconds


def _synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
