"""Callbacks that the settings ask for."""

from __future__ import annotations

from fastai.callback.core import Callback

from ...core import Settings
from .accumulation import AccumulateBatches
from .ema import MovingAverage
from .resize import GrowingSize


def build_callbacks(settings: Settings) -> list[Callback]:
    """Return the callbacks of phases that train the backbone, in the order of `--accumulate`, `--sizes` and `--ema`."""
    callbacks: list[Callback] = []
    if settings.accumulate > 1:
        callbacks.append(AccumulateBatches(settings.accumulate))
    if settings.sizes:
        callbacks.append(GrowingSize([int(size) for size in settings.sizes.split(",")], settings.size))
    if settings.ema:
        callbacks.append(MovingAverage())
    return callbacks
