"""Precision of training steps and of frozen forward passes: float32, or autocast to bf16 or fp16 where it is faster."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastai.learner import Learner
from fastcore.foundation import L
from torch import nn
from torch.amp.grad_scaler import GradScaler

from ..core import TrainingSettings, UsageError, cache
from ..core.system import count_cores
from ..models import to_network_input
from ..models.fuse_bn import fuse_bn
from . import processes
from .session import Session

KIND = "timings"
# Smallest speed-ups that are worth the rounding, of training steps and of forward passes; see docs/benchmarks.md, "Precision".
STEP_GAIN, PASS_GAIN = 1.2, 1.3
PASS_BATCH = 32  # maximum number of images of a timed forward pass
ROUNDS = 4  # the first is slow, because memory is allocated


class PrecisionCallback(MixedPrecision):
    """fastai's MixedPrecision for any device, with a method to leave autocast after an exception; see `use_precision`.

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


class FrozenBody(nn.Module):
    """A backbone in eval mode, with fused BatchNorm, that computes in a precision and returns float32.

    Args:
        body: backbone. It is set to eval mode, and not changed otherwise.
        precision: "off", "bf16" or "fp16".
    """

    def __init__(self, body: nn.Module, precision: str) -> None:
        super().__init__()
        self.body, self.precision = fuse_bn(body), precision

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `[b, 3, h, w]` to the output of the body `[b, ...]`, float32."""
        with autocast_passes(x.device, self.precision):
            features: torch.Tensor = self.body(x)
        return features.float()


def choose_step_precision(model: nn.Module, device: torch.device, settings: TrainingSettings, shape: Sequence[int]) -> str:
    """Return the precision of training steps, "off", "bf16" or "fp16", for input of `shape` (without the batch).

    With `--amp auto`: the 16-bit format that a CUDA device supports, on a CPU the format that is faster by measurement, and off elsewhere. Raises
    UsageError for fp16 without CUDA.
    """
    return _choose(device, settings, lambda: _time_on_cpu(model, settings.bs, shape, passes=False))


def settle_step_precision(session: Session, model: nn.Module, settings: TrainingSettings, shape: Sequence[int]) -> str:
    """Return `choose_step_precision` of the first process. A resumed training repeats the choice on a device of the same type."""
    journal, device = session.journal, session.learn.dls.device
    same = journal.once("device of the precision", lambda: device.type) == device.type
    name = "precision" if same else f"precision on {device.type}"
    return str(journal.once(name, lambda: processes.broadcast(choose_step_precision(model, device, settings, shape))))


def choose_pass_precision(network: nn.Module, device: torch.device, settings: TrainingSettings, shape: Sequence[int]) -> str:
    """Return the precision of forward passes of a frozen network, as `choose_step_precision` does."""
    return _choose(device, settings, lambda: _time_on_cpu(network, min(settings.bs, PASS_BATCH), shape, passes=True))


def _choose(device: torch.device, settings: TrainingSettings, time_on_cpu: Callable[[], str]) -> str:
    if settings.amp == "fp16" and device.type != "cuda":
        raise UsageError("--amp fp16 needs a CUDA device", "Use --amp bf16, off or auto")
    if settings.amp != "auto":
        return settings.amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return time_on_cpu() if device.type == "cpu" and has_bf16_kernels() else "off"


def has_bf16_kernels() -> bool:
    """Return whether oneDNN has bf16 kernels for this CPU. Without them bf16 is emulated, many times slower than float32, and is not timed."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN, or with another name of this query
        return True


def autocast_passes(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return a context for forward passes in a precision."""
    if precision == "off":
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


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


def _time_on_cpu(model: nn.Module, bs: int, shape: Sequence[int], passes: bool) -> str:
    """Time float32 and bf16, in training steps or in forward passes, and return the choice, "off" or "bf16".

    It is cached, because another choice in the next run would change its metrics.
    """
    machine = [platform.machine(), platform.processor(), count_cores(), torch.__version__]
    parameters = [[name, list(p.shape)] for name, p in model.named_parameters()]
    gain, time_formats, kind = (PASS_GAIN, _time_passes, {"passes": True}) if passes else (STEP_GAIN, _time_steps, {})
    name = cache.make_key(layout=3, parameters=parameters, shape=list(shape), bs=bs, machine=machine, **kind)

    def choose() -> dict[str, Any]:
        seconds = time_formats(model, (bs, *shape))
        return {"chosen": "bf16" if seconds["off"] > gain * seconds["bf16"] else "off", "seconds": seconds}

    return str(cache.get_or_compute(KIND, name, choose)["chosen"])


def _time_steps(model: nn.Module, shape: Sequence[int]) -> dict[str, float]:
    """Return the seconds of a forward and backward pass on noise `shape` in each format, on a copy of the model."""
    model = copy.deepcopy(model).train()
    x = to_network_input(torch.randn(*shape))
    y = torch.zeros(len(x), dtype=torch.long)

    def step() -> None:
        logits = model(x)
        torch.nn.functional.cross_entropy(logits.float(), y).backward()

    return _time_formats(step)


@torch.inference_mode()
def _time_passes(network: nn.Module, shape: Sequence[int]) -> dict[str, float]:
    """Return the seconds of a forward pass on noise `shape` in each format."""
    training, x = network.training, to_network_input(torch.randn(*shape))
    network.eval()
    seconds = _time_formats(lambda: network(x))
    network.train(training)
    return seconds


def _time_formats(run: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of a function in each format: the minimum of alternating rounds."""
    rounds = []
    for _ in range(ROUNDS):
        seconds = {}
        for precision in ("off", "bf16"):
            started = time.perf_counter()
            with autocast_passes(torch.device("cpu"), precision):
                run()
            seconds[precision] = time.perf_counter() - started
        rounds.append(seconds)
    return {precision: min(seconds[precision] for seconds in rounds) for precision in rounds[0]}
