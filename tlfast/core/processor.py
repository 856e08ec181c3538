"""Facts that explain the speed of the processor: instruction sets, the quotas of a container, frequency, time taken by other virtual machines.

All are read from files of Linux. On other systems the functions return None, 0 or an empty text.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

CPUINFO, STAT, OWN_GROUP = Path("/proc/cpuinfo"), Path("/proc/stat"), Path("/proc/self/cgroup")
GROUPS, PROCESSORS = Path("/sys/fs/cgroup"), Path("/sys/devices/system/cpu")
FLAGS = {"AMX": "amx_tile", "AVX-512": "avx512f", "AVX2": "avx2"}  # instruction set -> its flag in /proc/cpuinfo, the fastest first
# Variables that make an allocator check or fill each block.
CHECKING = ("MALLOC_CHECK_", "MALLOC_PERTURB_", "PYTHONDEVMODE")


def find_instruction_set() -> str:
    """Return the fastest instruction set of the processor: AMX, AVX-512, AVX2, ARM or Apple; "" if it is older or unknown."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "Apple" if sys.platform == "darwin" else "ARM"
    return parse_instruction_set(_read(CPUINFO))


def parse_instruction_set(cpuinfo: str) -> str:
    """Return the fastest instruction set that the text of `/proc/cpuinfo` names; "" for none.

    >>> parse_instruction_set("flags : fpu sse2 avx avx2 avx512f")
    'AVX-512'
    """
    words = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return next((name for name, flag in FLAGS.items() if flag in words), "")


def read_quota() -> float | None:
    """Return how many cores the control groups of the process, such as a container, may use on average; None without a limit."""
    quotas = [quota for text in _list_quotas() if (quota := parse_quota(text)) is not None]
    return min(quotas, default=None)


def read_memory_limits() -> list[tuple[int, int]]:
    """Return the limit of memory and the unused part of it, in bytes, of each control group of the process that has a limit.

    Cached files count as unused, because the system frees their memory when it is needed.
    """
    found = []
    for folder, names, cached in (
        *((folder, ("memory.max", "memory.current"), "inactive_file") for folder in _list_groups()),
        # of the first version of control groups:
        *((folder, ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file") for folder in _list_groups("memory")),
    ):
        limit, used = (_read(folder / name) for name in names)
        if limit.isdigit() and used.isdigit():
            facts = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
            found.append((int(limit), max(0, int(limit) - int(used) + int(facts.get(cached, 0)))))
    return found


def _list_groups(controller: str = "") -> Iterator[Path]:
    """Yield the folders of the process's control group and of the groups above it; with a controller, such as "memory", those of the first version."""
    groups = [line.split(":", 2)[1:] for line in _read(OWN_GROUP).splitlines() if line.count(":") >= 2]
    own = PurePosixPath(next((group for controllers, group in groups if controller in controllers.split(",")), "/"))
    for group in (own, *own.parents):
        yield GROUPS / controller / str(group).lstrip("/")


def _list_quotas() -> Iterator[str]:
    """Yield the quotas of the process's group and of the groups above it, as in `cpu.max`."""
    for folder in _list_groups():
        yield _read(folder / "cpu.max")
    for folder in _list_groups("cpu"):  # of the first version of control groups
        yield f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"


def parse_quota(text: str) -> float | None:
    """Return a quota in cores, from microseconds of computing and those of a period; None if there is no limit.

    >>> parse_quota("150000 100000"), parse_quota("max 100000")
    (1.5, None)
    """
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def read_frequency() -> float | None:
    """Return the present frequency of the fastest core as a share of the highest possible one; None if it is unknown."""
    present, highest = _read_highest("scaling_cur_freq"), _read_highest("cpuinfo_max_freq")
    return present / highest if present and highest else None


def _read_highest(name: str) -> int:
    """Return the highest of the frequencies of all cores in the files `name`, in kHz; 0 if there are none."""
    texts = [_read(path) for path in PROCESSORS.glob(f"cpu[0-9]*/cpufreq/{name}")]
    return max((int(text) for text in texts if text.isdigit()), default=0)


def read_ticks() -> tuple[int, int] | None:
    """Return the time of all cores since the start of the machine, and how much of it other virtual machines took, in ticks; None if unknown."""
    return parse_ticks(_read(STAT))


def parse_ticks(stat: str) -> tuple[int, int] | None:
    """Return total and stolen ticks from the text of `/proc/stat`; None if it has none.

    >>> parse_ticks("cpu  10 0 10 70 0 0 0 10 5 0")
    (100, 10)
    """
    words = next((line.split() for line in stat.splitlines() if line.startswith("cpu ")), [])
    ticks = [int(word) for word in words[1:9]]  # the others are part of the first two
    return (sum(ticks), ticks[7]) if len(ticks) == 8 else None


class CoreUse:
    """Use of this process's cores by other processes; for Linux only."""

    def __init__(self) -> None:
        self.cores = sorted(os.sched_getaffinity(0))
        self.last = self._read()

    def taken(self) -> float:
        """Return how many cores others have used since the last call, on average. Time taken by other virtual machines counts too."""
        before, self.last = self.last, self._read()
        seconds = self.last[0] - before[0]
        return max(0.0, (self.last[1] - before[1]) / seconds) if seconds > 0 else 0.0

    def _read(self) -> tuple[float, float]:
        """Return the time, and the seconds of all cores that this process has not used."""
        return time.perf_counter(), read_busy_seconds(STAT.read_text(encoding="ascii"), self.cores) - time.process_time()


def read_busy_seconds(stat: str, cores: list[int]) -> float:
    """Return the busy seconds of cores since the start of the machine, from the text of `/proc/stat`.

    >>> read_busy_seconds("cpu  9 9 9 9\\ncpu0 100 0 50 900 7 0 0 50 0 0\\n", [0]) * os.sysconf("SC_CLK_TCK")
    200.0
    """
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in stat.splitlines():
        name, *values = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, values[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def find_debug_allocators(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the variables that switch on an allocator for finding errors, which makes everything slower.

    >>> find_debug_allocators({"PYTHONMALLOC": "malloc_debug", "MALLOC_CHECK_": "0"})
    ['PYTHONMALLOC']
    """
    found = [name for name in CHECKING if environment.get(name, "0") not in ("", "0")]
    texts = {"PYTHONMALLOC": ("debug",), "GLIBC_TUNABLES": ("malloc.check", "malloc.perturb"), "LD_PRELOAD": ("malloc_debug", "asan", "valgrind")}
    return found + [name for name, marks in texts.items() if any(mark in environment.get(name, "") for mark in marks)]


def _read(path: Path) -> str:
    """Return the text of a file without spaces around it; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
