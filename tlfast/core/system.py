"""Facts and settings of the machine that need no torch: threads, memory, the C allocator."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import sys
import warnings
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# glibc's mallopt parameters (malloc.h). By default every activation of a few MB is mapped afresh from the kernel and handed back, and a
# training step on a CPU spends a third of its time in page faults; blocks that are kept make it about 1.5 times as fast.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BELOW = 1 << 30  # bytes

PACKAGES = ("tlfast", "torch", "torchvision", "fastai", "timm", "scikit-learn", "numpy", "pandas", "pillow", "typer", "rich", "matplotlib")


@lru_cache(maxsize=1)
def tune_allocator() -> bool:
    """Tell glibc to keep freed blocks for reuse; once a process. Returns whether it could be told."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BELOW) and libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BELOW))


def release_memory() -> None:
    """Hand blocks that were freed back to the system, for what follows needs others; the counterpart of `tune_allocator`."""
    if tune_allocator():
        ctypes.CDLL(None).malloc_trim(0)


def release_pages(array: np.ndarray) -> None:
    """Let go of the pages of a memory-mapped array that were read; other arrays are left alone.

    They stay in the system's cache, where they are found again at once, but as long as they are mapped they count as this process's memory,
    which would grow with the data.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def hide_known_warnings() -> None:
    """Keep warnings out of sight that a user can do nothing about: fastai and timm still call `torch.jit.script` when they are imported."""
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # odd EXIF, pages that are cut off, many pixels: an image that cannot be used is named anyway


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float:
    """Return how many processes ran or wanted to, on average over the last minute; 0 where the system does not say."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def package_versions() -> dict[str, str]:
    """Return the installed version of Python and of each package that matters to a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def total_memory_gib() -> float | None:
    """Return the machine's memory in GiB, or None where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return None


def free_memory_gib() -> float | None:
    """Return the memory that could be had without swapping, in GiB, or None where it cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def free_disk_gib(folder: str) -> float:
    """Return the free space of the disk that holds `folder` (or its nearest existing parent), in GiB."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / 2**30
