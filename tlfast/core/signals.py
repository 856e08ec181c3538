"""Ctrl-C and kill: the first lets the step that is under way finish, so that it can be kept; the second does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_interrupt(number: int, frame: Any) -> None:
    """Handle SIGTERM as Ctrl-C is handled: what is half done is tidied away."""
    raise KeyboardInterrupt


@contextmanager
def defer_interrupts() -> Iterator[Callable[[], bool]]:
    """Put off the first Ctrl-C or kill; yields a function that says whether there was one. Raises KeyboardInterrupt when the block ends after one.

    A second one raises it at once. Outside the main thread, which alone hears of signals, nothing changes.
    """
    asked: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}  # none of Python's is none
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as of a command that a shell has put into the background
            signal.signal(number, handle)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
