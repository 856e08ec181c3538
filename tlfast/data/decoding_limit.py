"""Limit of the memory for images that several threads decode at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..core.system import assume_free_memory

PIXEL_BYTES = 8  # of a decoded image and of a copy of it
SHARE = 0.5  # of the free memory, for the images of all threads

T = TypeVar("T")
_thread = threading.local()


class DecodingLimit:
    """Bytes of the images that threads decode at the same time, at most half of the free memory. One image is always admitted.

    A thread holds the memory of its image until its work ends. Only threads without an image wait, so that no two wait for each other.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = SHARE * assume_free_memory() if limit is None else limit
        self._held: dict[int, int] = {}  # bytes by thread
        self._changed = threading.Condition()

    def run(self, work: Callable[[str], T], path: str) -> T:
        """Return `work(path)`. `reserve` waits meanwhile for the memory of the images that `work` decodes."""
        _thread.limit = self
        try:
            return work(path)
        finally:
            _thread.limit = None
            with self._changed:
                self._held.pop(threading.get_ident(), None)
                self._changed.notify_all()

    def reserve(self, size: int) -> None:
        """Reserve `size` bytes for this thread."""
        thread = threading.get_ident()
        with self._changed:
            if thread not in self._held:
                self._changed.wait_for(lambda: not self._held or sum(self._held.values()) + size <= self.limit)
            self._held[thread] = self._held.get(thread, 0) + size


def reserve(pixels: int) -> None:
    """Wait for the memory of an image, if a limit holds for the work of this thread."""
    limit: DecodingLimit | None = getattr(_thread, "limit", None)
    if limit:
        limit.reserve(pixels * PIXEL_BYTES)
