"""Threads of torch on a CPU whose cores other processes use too.

GNU OpenMP (libgomp), the thread pool of torch on Linux, waits at the end of each parallel region by spinning for milliseconds. That is the fastest on an
idle machine. Where another process takes one of the cores, the thread that was descheduled arrives late, and the others spin until it does: a
training becomes up to ten times slower; see docs/benchmarks.md, "Busy machine".

libgomp spins only briefly while its teams of threads have more threads than there are cores (`gomp_throttled_spin_count_var` in its sources). While
other processes use the cores, `share_cores` starts an additional, idle team. The number of threads that compute stays the same, and so do the
results.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..core.processor import STAT, CoreUse

INTERVAL = 1.0  # seconds between two looks at the use of the cores
TAKEN, FREE = 0.35, 0.15  # cores used by others, above which threads sleep, and below which they spin again
TEAM_ELEMENTS = 1 << 20  # of a tensor whose addition is spread over all threads


@contextmanager
def share_cores(device: torch.device) -> Iterator[None]:
    """Within the block, let waiting threads sleep while other processes use the cores.

    Does nothing on a GPU, with one thread, on other systems than Linux, and if OMP_WAIT_POLICY is set.
    """
    if device.type != "cpu" or torch.get_num_threads() < 2 or not STAT.exists() or os.environ.get("OMP_WAIT_POLICY"):
        yield
        return
    watcher = _Watcher()
    watcher.start()
    try:
        yield
    finally:
        watcher.stop()


class _Watcher(threading.Thread):
    """Look at the use of the cores every INTERVAL seconds, and open or close the additional team."""

    def __init__(self) -> None:
        super().__init__(name="tlfast-core-use", daemon=True)
        self.stopped, self.use = threading.Event(), CoreUse()
        self.team: _Team | None = None

    def run(self) -> None:
        while not self.stopped.wait(INTERVAL):
            taken = self.use.taken()
            if self.team is None and taken > TAKEN:
                self.team = _Team()
                self.team.start()
            elif self.team is not None and taken < FREE:
                self._close()
        self._close()

    def _close(self) -> None:
        if self.team:
            self.team.closed.set()
            self.team.join()
            self.team = None

    def stop(self) -> None:
        """Close the team and end the thread."""
        self.stopped.set()
        self.join()


class _Team(threading.Thread):
    """A thread with an OpenMP team of its own that does nothing. The threads of the team sleep; they end with this thread."""

    def __init__(self) -> None:
        super().__init__(name="tlfast-idle-team", daemon=True)
        self.closed = threading.Event()

    def run(self) -> None:
        torch.zeros(TEAM_ELEMENTS).add_(1)
        self.closed.wait()
