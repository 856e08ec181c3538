"""Progress of a command on stderr: bars on a terminal, else lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich.progress
from rich.progress import ProgressColumn
from rich.progress import Task as Bar
from rich.text import Text

from ..core import Event, Note, Progress
from . import formatting

if TYPE_CHECKING:
    from .console import Screen


class Lines:
    """Listener for output that is not a terminal: notes to stderr, each epoch to stdout."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.headed = screen, False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) or self.screen.quiet:
            return
        if isinstance(event, Note):
            self.screen.note(event)
            return
        from ..training import DepthsPlanned, EpochEnd

        if isinstance(event, DepthsPlanned):
            self.screen.depths(event.plans)
        elif isinstance(event, EpochEnd) and not self.screen.as_json:
            for line in formatting.format_epochs(event.row, headed=self.headed):
                print(line, flush=True)
            self.headed = True


class Speed(ProgressColumn):
    """Progress column: steps per second."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


class Bars:
    """Listener for a terminal: a progress bar for each phase, a line for each epoch."""

    def __init__(self, screen: Screen, bars: rich.progress.Progress) -> None:
        self.screen, self.bars, self.headed = screen, bars, False
        self.known: dict[str, rich.progress.TaskID] = {}  # phase -> its bar
        self.endless: rich.progress.TaskID | None = None  # the bar of a phase of unknown length
        self.starting = bars.add_task("starting", total=None)  # importing torch and fastai takes seconds

    def __call__(self, event: Event) -> None:
        self.bars.update(self.starting, visible=False)
        if isinstance(event, Note):
            self.screen.note(event)
        if isinstance(event, Progress):
            self._advance(event)
        if isinstance(event, (Note, Progress)):
            return
        from ..training import DepthsPlanned, EpochEnd

        if isinstance(event, DepthsPlanned):
            self.screen.depths(event.plans)
        elif isinstance(event, EpochEnd):
            for line in formatting.format_epochs(event.row, headed=self.headed):
                self.bars.console.print(line)
            self.headed = True

    def _advance(self, event: Progress) -> None:
        """Update the bar of a phase. One of unknown length is shown from its first step until another phase begins."""
        total = event.total or None
        if event.phase not in self.known:
            self.known[event.phase] = self.bars.add_task(event.phase, total=total, visible=False)
        bar = self.known[event.phase]
        if self.endless is not None and self.endless != bar:
            self.bars.update(self.endless, visible=False)
        self.endless = None if total else bar
        self.bars.update(bar, completed=event.done, total=total, visible=event.done < total if total else event.done > 0)
