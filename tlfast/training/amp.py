"""Precision of a training: float32, or autocast to bf16 or fp16 where it is faster."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner
from fastcore.foundation import L
from torch.amp.grad_scaler import GradScaler

from ..core import TrainingSettings, UsageError, cache
from ..core.system import count_cores
from ..models import to_network_input

KIND = "timings"
GAIN = 1.2  # smallest speed-up of a pass that is worth the rounding; see docs/benchmarks.md, "Precision"
ROUNDS = 4  # the first is slow, because memory is allocated


class PrecisionCallback(MixedPrecision):
    """fastai's MixedPrecision for any device. It leaves autocast also if a forward pass raises.

    fastai enters autocast before a batch and leaves it after the loss. An exception in between, such as an out-of-memory error, would leave autocast
    and its cache of 16-bit weights in force for everything that follows.
    """

    entered = False

    def before_fit(self) -> None:
        if self.dls.device.type == "cuda":
            super().before_fit()
        else:
            self.learn.scaler, self.scales = GradScaler(self.dls.device.type, enabled=False), L()
            self.autocast = torch.autocast(self.dls.device.type, torch.bfloat16)

    def before_batch(self) -> None:
        super().before_batch()
        self.entered = True

    def after_loss(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Leave autocast, if it was entered."""
        if self.entered:
            self.entered = False
            self.autocast.__exit__(None, None, None)


def choose_precision(learn: Learner, settings: TrainingSettings, shape: Sequence[int]) -> str:
    """Return "off", "bf16" or "fp16" for input of `shape` (without the batch).

    With `--amp auto`: the 16-bit format that a GPU supports, and on a CPU the format that is faster by measurement. Raises UsageError for fp16
    without CUDA.
    """
    device = learn.dls.device.type
    if settings.amp == "fp16" and device != "cuda":
        raise UsageError("--amp fp16 needs a CUDA device", "Use --amp bf16, off or auto")
    if settings.amp != "auto":
        return settings.amp
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return _time_on_cpu(learn, settings, shape) if device == "cpu" else "off"


@contextmanager
def use_precision(learn: Learner, precision: str) -> Iterator[None]:
    """Train `learn` in a precision within the block. Autocast ends with the block, also after an exception."""
    if precision == "off":
        yield
        return
    callback = PrecisionCallback(AMPMode(precision))
    with learn.added_cbs(callback):
        try:
            yield
        finally:
            callback.leave()


def _time_on_cpu(learn: Learner, settings: TrainingSettings, shape: Sequence[int]) -> str:
    """Time both formats and cache the choice, because another choice in the next run would change its metrics."""
    machine = [platform.machine(), platform.processor(), count_cores(), torch.__version__]
    parameters = [[name, list(p.shape)] for name, p in learn.model.named_parameters()]
    name = cache.make_key(layout=3, parameters=parameters, shape=list(shape), bs=settings.bs, machine=machine)

    def choose() -> dict[str, Any]:
        seconds = _time_steps(learn, (settings.bs, *shape))
        return {"chosen": "bf16" if seconds["off"] > GAIN * seconds["bf16"] else "off", "seconds": seconds}

    return str(cache.get_or_compute(KIND, name, choose)["chosen"])


def _time_steps(learn: Learner, shape: Sequence[int]) -> dict[str, float]:
    """Return the seconds of a forward and backward pass on noise `shape` in each format: the minimum of alternating rounds, on a copy of the model."""
    model = copy.deepcopy(learn.model).train()
    x = to_network_input(torch.randn(*shape))
    y = torch.zeros(len(x), dtype=torch.long)

    def step(precision: str) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
        torch.nn.functional.cross_entropy(logits.float(), y).backward()
        return time.perf_counter() - started

    rounds = [{precision: step(precision) for precision in ("off", "bf16")} for _ in range(ROUNDS)]
    return {precision: min(seconds[precision] for seconds in rounds) for precision in rounds[0]}
