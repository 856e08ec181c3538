"""The number format of a training: float32, or autocast to a shorter one where this machine is faster with it."""

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

from ..core import cache
from ..core.errors import UsageError
from ..core.settings import Settings
from ..core.system import count_cores
from ..models.build import to_network_input

KIND = "timings"
GAIN = 1.2  # how much faster a step must be in a shorter format to be worth its rounding: augmentation and optimizer gain nothing
ROUNDS = 4  # the first of which is slow, for memory is allocated


class Autocast(Callback):
    """Runs the forward pass in bf16 on any device; fastai's MixedPrecision knows CUDA only."""

    order = MixedPrecision.order

    def before_batch(self) -> None:
        self.context = torch.autocast(self.dls.device.type, torch.bfloat16)
        self.context.__enter__()

    def after_pred(self) -> None:
        self.learn.pred = to_float(self.pred)

    def after_loss(self) -> None:
        self.context.__exit__(None, None, None)


def choose_precision(learn: Learner, settings: Settings, shape: Sequence[int]) -> str:
    """Return off, bf16 or fp16: what `--amp` says, else the faster on a CPU, for input of a shape, and the half-size format that a GPU has."""
    device = learn.dls.device.type
    if settings.amp == "fp16" and device != "cuda":
        raise UsageError("--amp fp16 needs a CUDA device", "Use --amp bf16, off or auto")
    if settings.amp != "auto":
        return settings.amp
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return _time_on_cpu(learn, settings, shape) if device == "cpu" else "off"


def precision_callbacks(chosen: str, device: torch.device) -> list[Callback]:
    if chosen == "off":
        return []
    return [MixedPrecision(AMPMode(chosen))] if device.type == "cuda" else [Autocast()]


def _time_on_cpu(learn: Learner, settings: Settings, shape: Sequence[int]) -> str:
    """Time both formats, once for a network, size and batch: a choice that fell otherwise in the next run would change its figures."""
    machine = [platform.machine(), platform.processor(), count_cores(), torch.__version__]
    parameters = [[name, list(p.shape)] for name, p in learn.model.named_parameters()]
    name = cache.make_key(layout=3, parameters=parameters, shape=list(shape), bs=settings.bs, machine=machine)

    def timed() -> dict[str, Any]:
        seconds = _time_steps(learn, (settings.bs, *shape))
        return {"chosen": "bf16" if seconds["off"] > GAIN * seconds["bf16"] else "off", "seconds": seconds}

    return cache.get_or_compute(KIND, name, timed)["chosen"]


def _time_steps(learn: Learner, shape: Sequence[int]) -> dict[str, float]:
    """Return the seconds of a forward and backward pass in each format: a copy of the model on noise, in turns, the least of some."""
    model = copy.deepcopy(learn.model).train()
    x = to_network_input(torch.randn(*shape))
    y = torch.zeros(len(x), dtype=torch.long)

    def step(name: str) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "bf16"):
            logits = model(x)
        torch.nn.functional.cross_entropy(logits.float(), y).backward()
        return time.perf_counter() - started

    rounds = [{name: step(name) for name in ("off", "bf16")} for _ in range(ROUNDS)]
    return {name: min(seconds[name] for seconds in rounds) for name in rounds[0]}
