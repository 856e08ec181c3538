"""The load of the machine during a training, without a package for it."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...core.system import free_memory_gib, load_average
from .base import SYSTEM

MIN_SECONDS = 1.0  # between measurements


class Load:
    """Measures cores in use, memory, and memory and utilization of a GPU.

    >>> sorted(Load().measure())[:2]
    ['system/cores_used', 'system/load_average']
    """

    def __init__(self) -> None:
        self.measured, self.processor = time.perf_counter(), time.process_time()
        self.first = True

    def measure(self) -> dict[str, float]:
        """Return the load since the measurement before; nothing within MIN_SECONDS of it."""
        now, processor = time.perf_counter(), time.process_time()
        if not self.first and now - self.measured < MIN_SECONDS:
            return {}
        values = {"cores_used": (processor - self.processor) / max(now - self.measured, 1e-9), "load_average": load_average()}
        self.measured, self.processor, self.first = now, processor, False
        values |= {name: value for name, value in (("memory_gib", _process_memory_gib()), ("free_memory_gib", free_memory_gib())) if value is not None}
        return {SYSTEM + name: value for name, value in {**values, **_gpu_values(sys.modules.get("torch"))}.items()}


def _process_memory_gib() -> float | None:
    """Return the resident memory of this process in GiB, None if it is unknown."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _gpu_values(torch: Any) -> dict[str, float]:
    """Return memory and utilization of the current GPU; nothing if none is in use. torch reads the utilization by nvidia-ml-py, if it is installed."""
    values: dict[str, float] = {}
    if torch is None or not torch.cuda.is_initialized():
        return values
    with suppress(Exception):  # of the driver
        free, total = torch.cuda.mem_get_info()
        values |= {"gpu_memory_gib": (total - free) / 2**30, "gpu_memory_allocated_gib": torch.cuda.memory_allocated() / 2**30}
        values["gpu_percent"] = float(torch.cuda.utilization())
    return values
