"""Choice of the device, and its memory."""

from __future__ import annotations

import torch
from torch import nn

from ..core import UsageError
from ..core.system import count_cores, tune_allocator


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`: auto (a GPU if there is one), cpu, cuda or mps.

    Tunes the memory allocator, and for a CPU sets the number of threads. Raises UsageError if torch has no such device.
    """
    tune_allocator()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if wanted not in available:
        raise UsageError(f"--device '{wanted}' is not one of: auto, {', '.join(available)}")
    if not available[wanted]:
        raise UsageError(f"--device {wanted}: torch finds no such device", "Use --device auto; tlfast doctor lists the devices")
    if wanted == "cpu":
        torch.set_num_threads(count_cores())
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device(wanted)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether torch raised an error because memory is short: OutOfMemoryError on CUDA, a plain RuntimeError on other devices."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory"))


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its operations, so that a clock measures them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_device_memory(device: torch.device) -> None:
    """Return unused memory of a GPU from torch's cache to the driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def copy_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights and buffers in main memory, for `load_state_dict`."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
