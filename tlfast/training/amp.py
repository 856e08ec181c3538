"""Precision of a training: float32, or autocast to bf16 or fp16 where it is faster."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Sequence
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner
from fastai.torch_core import to_float

from ..core import TrainingSettings, UsageError, cache
from ..core.system import count_cores
from ..models import to_network_input

KIND = "timings"
GAIN = 1.2  # smallest speed-up of a pass that is worth the rounding; see docs/benchmarks.md, "Precision"
ROUNDS = 4  # the first is slow, because memory is allocated


class Autocast(Callback):
    """Run the forward pass in bf16 on any device; fastai's MixedPrecision supports CUDA only."""

    order = MixedPrecision.order

    def before_batch(self) -> None:
        self.context = torch.autocast(self.dls.device.type, torch.bfloat16)
        self.context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = to_float(self.pred)

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


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
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return _time_on_cpu(learn, settings, shape) if device == "cpu" else "off"


def precision_callbacks(precision: str, device: torch.device) -> list[Callback]:
    """Return the callbacks that train in a precision: none for "off"."""
    if precision == "off":
        return []
    return [MixedPrecision(AMPMode(precision))] if device.type == "cuda" else [Autocast()]


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
