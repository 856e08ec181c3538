"""Choice of the device to run on."""

from __future__ import annotations

import torch

from ..core.errors import UsageError
from ..core.system import count_cores, tune_allocator


def pick_device(wanted: str) -> torch.device:
    """Return the device to run on. Raises UsageError where one is asked for that is not there."""
    tune_allocator()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[wanted]:
        raise UsageError(f"--device {wanted}: torch finds none here", "Use --device auto; tlfast doctor shows what there is")
    if wanted == "cpu":
        torch.set_num_threads(count_cores())
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device(wanted)


# Weights
