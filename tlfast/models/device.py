"""Choice of the device."""

from __future__ import annotations

import torch

from ..core import UsageError
from ..core.system import count_cores, tune_allocator


def pick_device(wanted: str) -> torch.device:
    """Return the device called `wanted`: auto (a GPU if there is one), cpu, cuda or mps.

    For a CPU it also sets the number of threads and tunes the memory allocator. Raises UsageError if torch has no such device.
    """
    tune_allocator()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[wanted]:
        raise UsageError(f"--device {wanted}: torch finds no such device", "Use --device auto; tlfast doctor lists the devices")
    if wanted == "cpu":
        torch.set_num_threads(count_cores())
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device(wanted)
