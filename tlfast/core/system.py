"""Facts and settings of the machine, without torch: cores, memory, disk, package versions, the C allocator."""

from __future__ import annotations

import ctypes
import logging
import math
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

from . import processor

if TYPE_CHECKING:
    import numpy as np

# mallopt parameters of glibc (malloc.h). By default each large activation is mapped from the kernel and unmapped again, which causes page
# faults in every training step on a CPU; see docs/benchmarks.md, "C allocator".
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BELOW = 1 << 30  # bytes

RESULT_PACKAGES = ("tlfast", "torch", "torchvision", "fastai", "timm", "scikit-learn", "numpy", "pillow")  # whose versions can change results
PACKAGES = (*RESULT_PACKAGES, "pandas", "typer", "rich", "matplotlib")


@lru_cache(maxsize=1)
def tune_allocator() -> bool:
    """Make glibc keep freed blocks for reuse, once per process. Returns whether it did."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BELOW) and libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BELOW))


def release_memory() -> None:
    """Return freed blocks to the system before a step that needs blocks of other sizes; the counterpart of `tune_allocator`."""
    if tune_allocator():
        ctypes.CDLL(None).malloc_trim(0)


def release_pages(array: np.ndarray) -> None:
    """Unmap the pages of a memory-mapped array that were read, so that the memory of the process does not grow with the data.

    The pages stay in the page cache of the system. Other arrays are left alone.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def hide_known_warnings() -> None:
    """Hide warnings that a user cannot act on, such as those of `torch.jit.script`, which fastai and timm call on import."""
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*__array__ implementation doesn't accept a copy keyword.*", category=DeprecationWarning)  # fastai's plots
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home folder that cannot be written to
    warnings.filterwarnings("ignore", module=r"PIL\.")  # on unusual EXIF or truncated pages; unreadable images are reported anyway


_limit: int | None = None  # of `limit_cores`


def count_cores() -> int:
    """Return the number of processor cores available to this process."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _limit or available)


def limit_cores(number: int | None) -> None:
    """Let this process use fewer cores than it could, as a worker beside others; None ends the limit."""
    global _limit
    _limit = number


def load_average() -> float:
    """Return the load average of the last minute, 0 if the system has none."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of PACKAGES, by name."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def total_memory_gib() -> float | None:
    """Return the memory of the machine, or what a container may use of it, in GiB; None if it is unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min([memory, *(limit for limit, _ in processor.read_memory_limits())]) / 2**30
    except (ValueError, OSError, AttributeError):
        return None


def free_memory_gib() -> float | None:
    """Return the memory available without swapping, in a container at most to its limit, in GiB; None if it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 1024
        return min([available, *(unused for _, unused in processor.read_memory_limits())]) / 2**30
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def assume_free_memory() -> float:
    """Return the free memory as `free_memory_gib` does, but in bytes; 4 GiB if it is unknown."""
    return 2**30 * (free_memory_gib() or 4.0)


def free_shared_memory() -> float:
    """Return the free bytes of /dev/shm, through which processes exchange batches; infinity without it."""
    try:
        shared = os.statvfs("/dev/shm")
    except (OSError, AttributeError):  # another system
        return math.inf
    return shared.f_bavail * shared.f_frsize if shared.f_blocks else math.inf


def free_disk_gib(folder: str) -> float:
    """Return the free disk space of `folder`, or of its nearest existing parent, in GiB."""
    path = Path(folder).absolute()
    while not path.exists() and path != path.parent:  # a drive of Windows may not exist
        path = path.parent
    usage = shutil.disk_usage(path)
    return usage.free / 2**30 if usage.total else math.inf  # such as /proc, where writing fails with an error of its own
