"""Progress events of long operations.

The caller passes a listener. The command line turns events into progress bars, notes and tables. Other packages define further events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Base class of events. `phase` names the step of the work, such as "head" or "downloading x.zip"."""

    phase: str


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` steps are complete. `total` is 0 if it is unknown."""

    done: int
    total: int


@dataclass(frozen=True)
class Note(Event):
    """A message for the user."""

    note: str


OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Discard the event. The default listener."""
