"""What is passed around: frozen dataclasses, from a row of the image table to an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..results import Choice, EpochRow

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Event:
    """What a long piece of work says while it runs: a step of `total`, a row for the table of epochs, depths to choose from, or a remark."""

    phase: str
    done: int = 0
    total: int = 0
    row: EpochRow | None = None
    note: str = ""
    plan: Sequence[Choice] = ()


OnEvent = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Take an event and do nothing: the default listener."""
