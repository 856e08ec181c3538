"""`--bs auto`: the largest batch that fits into memory and still makes a training faster."""

from __future__ import annotations

import copy
import gc
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from ..core import Note, Settings, TrainingSettings
from ..models import collect_garbage, is_out_of_memory, release_device_memory
from . import processes
from .amp import choose_step_precision
from .profiler import run_steps
from .session import Session

MIN_BS = TrainingSettings.bs
MIN_STEPS = 20  # per epoch
MIN_GAIN = 1.1  # in images/s, of twice the batch


def use_default_batch(settings: Settings) -> Settings:
    """Return the settings with the default batch size in place of `--bs auto`, for work without training steps of the backbone that could be timed."""
    return replace(settings, bs=settings.bs or TrainingSettings.bs)


def resolve_batch(session: Session, settings: Settings, model: nn.Module, shape: Sequence[int]) -> Settings:
    """Return the settings with the batch size chosen, with `--bs auto`, for a model that trains on input of `shape` (without the batch).

    A given learning rate is multiplied by the square root of the ratio to the default batch size, as the rate of `--lr auto` is. A resumed training
    repeats the choice.
    """
    if settings.bs:
        return settings
    settings = replace(settings, bs=session.journal.once("batch", lambda: choose_batch(session, settings, model, shape)))
    if settings.rate is None:
        return settings
    rate = f"{settings.rate * math.sqrt(settings.bs / MIN_BS):.3g}"
    session.on_event(Note("batch size", f"learning rate {rate} instead of {settings.lr}, for batches of {settings.bs} images"))
    return replace(settings, lr=rate)


def choose_batch(session: Session, settings: Settings, model: nn.Module, shape: Sequence[int]) -> int:
    """Time training steps with twice the batch until they are not MIN_GAIN times as fast; return the fastest batch size."""
    learn, device = session.learn, session.learn.dls.device
    model = copy.deepcopy(model)
    precision = choose_step_precision(model, device, replace(settings, bs=MIN_BS), shape)
    speeds: dict[int, float] = {}

    def measure(bs: int) -> float:
        collect_garbage(device)  # of the steps before
        speeds[bs] = 1 / statistics.median(run_steps(learn, model, tuple(shape), bs, precision))
        return speeds[bs]

    try:
        chosen = grow_batch(measure, len(session.table.part("train")) // (MIN_STEPS * processes.world_size()))
    finally:
        gc.collect()
        release_device_memory(device)
    session.on_event(
        Note("batch size", f"batches of {chosen} images; images/s by batch size: " + ", ".join(f"{bs} {speed:,.0f}" for bs, speed in speeds.items()))
    )
    return chosen


def grow_batch(measure: Callable[[int], float], largest: int) -> int:
    """Return the batch size to use, at most `largest` but at least MIN_BS. `measure` returns the images/s of a batch size.

    >>> grow_batch(lambda bs: min(bs, 300), largest=10_000)
    256
    """
    bs = MIN_BS
    try:
        speed = measure(bs)
        while 2 * bs <= largest and (faster := measure(2 * bs)) >= MIN_GAIN * speed:
            bs, speed = 2 * bs, faster
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return bs
