"""Ctrl-C and SIGTERM. The first one lets the current step finish, so that it can be saved; the second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM as Ctrl-C: raise KeyboardInterrupt, so that unfinished files are removed."""
    raise KeyboardInterrupt


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Defer the first Ctrl-C or SIGTERM to the end of the block. Yields a function that returns whether one has arrived.

    Raises KeyboardInterrupt at the end of the block after one signal, and at once after a second one. Outside the main thread, which alone
    receives signals, nothing changes.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}  # getsignal returns None for a handler not set from Python
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # a shell ignores SIGINT for commands in the background
            signal.signal(number, handle)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
