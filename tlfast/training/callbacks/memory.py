"""Memory of a fit on a CPU."""

from __future__ import annotations

import time

from fastai.callback.core import Callback

from ...core.system import release_memory

RELEASED_AFTER = 20.0  # seconds; see docs/benchmarks.md, "C allocator"


class ReleaseMemory(Callback):
    """Return freed blocks to the system from time to time: they are kept for the next step, and fragments of them add up."""

    order = 96  # after all callbacks of a step
    run_valid = False

    def before_fit(self) -> None:
        self.released = time.perf_counter()

    def after_batch(self) -> None:
        if time.perf_counter() - self.released >= RELEASED_AFTER:
            release_memory()
            self.released = time.perf_counter()
