"""Progress of long calls: bars in a terminal, a bar with a table of epochs in a notebook, only notes, by logging, if the output is piped."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from html import escape
from typing import Any

from ..core import Event, Note, OnEvent, Progress, ignore_event
from ..training.types import EpochEnd
from .display import format_table, in_notebook, wrap_html
from .keywords import with_keywords_in_notes

REDRAWN = 0.2  # seconds between drawings in a notebook, at least


@contextmanager
def show_progress(quiet: bool = False) -> Iterator[OnEvent]:
    """Yield a listener for events. Long calls show progress, notes and epochs; `quiet` hides them."""
    if quiet:
        yield ignore_event
    elif in_notebook():
        output = _Notebook()
        try:
            yield with_keywords_in_notes(output)
        finally:
            output.finish()
    elif sys.stderr and sys.stderr.isatty():  # None without a console, as in a Windows service
        from ..cli.console import Screen

        with Screen().progress() as on_event:
            yield with_keywords_in_notes(on_event)
    else:
        yield with_keywords_in_notes(_log_notes)


def _log_notes(event: Event) -> None:
    """Log notes, such as on skipped images. Without a configuration, Python's logging writes them to stderr."""
    if isinstance(event, Note):
        logging.getLogger("tlfast").warning("%s: %s", event.phase, event.note)


class _Notebook:
    """Listener that draws into one output of a cell: the current step, notes, and a table of epochs that remains."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

        self.html, self.handle = HTML, display(HTML(""), display_id=True)
        self.step: Progress | None = None
        self.notes: list[str] = []
        self.epochs: list[dict[str, Any]] = []
        self.drawn = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.step = event if event.done < event.total else None
        elif isinstance(event, Note):
            self.notes.append(f"{event.phase}: {event.note}")
        elif isinstance(event, EpochEnd):
            self.epochs.append(asdict(event.row))
        if not isinstance(event, Progress) or time.monotonic() - self.drawn > REDRAWN:
            self.draw()

    def finish(self) -> None:
        """Remove the bar; notes and epochs remain."""
        self.step = None
        self.draw()

    def draw(self) -> None:
        """Update the output of the cell."""
        self.drawn = time.monotonic()
        self.handle.update(self.html(self.render()))

    def render(self) -> str:
        """Return the output of the cell as HTML."""
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in self.notes)
        columns = list(self.epochs[0]) if self.epochs else []
        table = format_table(columns, [list(epoch.values()) for epoch in self.epochs]) if self.epochs else ""
        bar = ""
        if self.step:
            bar = f'<label>{escape(self.step.phase)} <progress value="{self.step.done}" max="{self.step.total}"></progress> '
            bar += f"{self.step.done:,} of {self.step.total:,}</label>"
        return wrap_html(notes, table, bar) if notes or table or bar else ""
