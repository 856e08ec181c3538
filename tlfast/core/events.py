"""Progress events: what a long operation reports to its caller while it runs.

The caller passes a listener; the command line turns events into bars, notes and tables. Packages above add events of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Base class: something happened in a phase, such as "head" or "downloading x.zip"."""

    phase: str


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` steps are complete; a `total` of 0 is unknown."""

    done: int
    total: int


@dataclass(frozen=True)
class Note(Event):
    """A remark for the user."""

    note: str


OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Discard the event: the default listener."""
