"""Correct labels: relabel or drop images, and get a new table. Images and their folder are not changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..core import UsageError
from ..core.errors import suggest_name
from ..data import Row
from ..data.split import drop_spare
from ..evaluation.report.thumbnails import make_thumbnail
from .datasets import Dataset, write_table
from .display import ImageFrame, format_table, wrap_html
from .keywords import check_text, with_keywords_in_messages

if TYPE_CHECKING:
    from .datasets import Findings
    from .run import Run

AnyPath = str | os.PathLike[str]
SIDE = 120  # pixels of an image in the widget


class Choice(Enum):
    """A decision on an image other than a new class; classes can have any name."""

    KEEP = "keep"
    DROP = "drop"


class Cleaner:
    """Decisions about images of a run. `run.cleaner()` builds it.

    In a notebook it shows the candidates, each with a choice: keep, drop, or another class; this needs `pip install "tlfast[notebook]"`. In a script
    use `relabel` and `drop`.

    Attributes:
        candidates: images with large losses or suspected wrong labels: path, label, suggestion, loss, reason.

    >>> cleaner = run.cleaner(labels=True)  # doctest: +SKIP
    >>> cleaner.relabel("photos/tulip/7.jpg", "daisy")  # doctest: +SKIP
    >>> tlfast.train(cleaner.apply(), like=run)  # doctest: +SKIP
    """

    def __init__(self, run: Run, top_losses: pd.DataFrame, suspected: Findings | None = None) -> None:
        self._run, self._dataset = run, run.dataset
        self._rows = {row.path: row for row in self._dataset.rows}
        self._decisions: dict[str, str | Choice] = {}
        self.candidates = _merge_candidates(top_losses, suspected)

    @property
    def decisions(self) -> dict[str, str]:
        """The decisions: path -> "drop" or the new class."""
        return {path: decision.value if isinstance(decision, Choice) else decision for path, decision in self._decisions.items()}

    @with_keywords_in_messages
    def relabel(self, path: AnyPath | Iterable[AnyPath], label: str) -> None:
        """Give one image or several another class. Raises UsageError for an unknown image or class."""
        check_text("label", label, 'label="dog"')
        if label not in self._run.classes:
            raise UsageError(f"unknown class '{label}'", suggest_name(label, self._run.classes) or f"Classes: {', '.join(self._run.classes)}")
        self._decide(path, label)

    @with_keywords_in_messages
    def drop(self, path: AnyPath | Iterable[AnyPath]) -> None:
        """Leave out one image or several. Raises UsageError for an unknown image."""
        self._decide(path, Choice.DROP)

    @with_keywords_in_messages
    def keep(self, path: AnyPath | Iterable[AnyPath]) -> None:
        """Take back a decision. Raises UsageError for an unknown image."""
        self._decide(path, Choice.KEEP)

    def _decide(self, path: AnyPath | Iterable[AnyPath], decision: str | Choice) -> None:
        if not isinstance(path, str | os.PathLike | Iterable):
            raise UsageError(f"{path!r} is neither the path of an image nor a list of paths", "Use the paths of cleaner.candidates")
        for one in [path] if isinstance(path, str | os.PathLike) else list(path):
            given = check_text("path", one, "those of cleaner.candidates")
            each = given if given in self._rows else os.path.abspath(given)  # tables of DataFrames have absolute paths
            if each not in self._rows:
                raise UsageError(f"{given} is not an image of {self._run.id}", "Use the paths of cleaner.candidates or run.dataset.table")
            if decision in (Choice.KEEP, self._rows[each].label):
                self._decisions.pop(each, None)
            else:
                self._decisions[each] = decision

    @with_keywords_in_messages
    def apply(self) -> Dataset:
        """Write a table with all images of the run and the decisions, to `exports/<task>/tables`, and return it as a dataset.

        All images keep their split, so that results remain comparable. `tlfast.train(cleaner.apply(), like=run)` trains on it. Raises RunError.
        """
        rows = [changed for row in drop_spare(self._rows.values()) if (changed := self._change(row))]
        path = write_table(rows, self._run.settings.out, self._run.settings.task)
        return Dataset(self._dataset.task, {"data": path, "out": self._run.settings.out})

    def _change(self, row: Row) -> Row | None:
        decision = self._decisions.get(row.path, Choice.KEEP)
        if isinstance(decision, Choice):
            return row if decision is Choice.KEEP else None
        return replace(row, label=decision)

    def __repr__(self) -> str:
        dropped = sum(decision is Choice.DROP for decision in self._decisions.values())
        return f"Cleaner of {self._run.id}: {len(self.candidates)} candidates, {dropped} dropped, {len(self._decisions) - dropped} relabelled"

    # The widget

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

        try:
            display(self.widget())
        except ImportError:
            display(HTML(wrap_html('<p>Install the widget with: pip install "tlfast[notebook]"</p>', self.candidates._repr_html_())))

    def widget(self) -> Any:
        """Return the ipywidgets form of the candidates. Raises ImportError without ipywidgets."""
        from ipywidgets import Box, Label, Layout  # type: ignore[import-not-found, unused-ignore]

        status = Label(repr(self))
        cells = [self._build_cell(record, status) for record in self.candidates.to_dict("records")]
        form = Box(cells, layout=Layout(display="flex", flex_flow="row wrap", align_items="flex-start"))
        return Box([status, form], layout=Layout(display="flex", flex_flow="column"))

    def _build_cell(self, record: dict[str, Any], status: Any) -> Any:
        """Return the widget of one image: picture, label, choice."""
        from ipywidgets import HTML, Dropdown, Layout, VBox

        path = record["path"]
        picture = f'<img src="{make_thumbnail(path)}" style="width: {SIDE}px; height: {SIDE}px; object-fit: contain" alt="">'
        facts = format_table(("label", "suggestion"), [(record["label"], record["suggestion"])], 2)
        names = {choice.value for choice in Choice}
        classes = [(f"class {name}" if name in names else name, name) for name in self._run.classes]
        options = [*((choice.value, choice) for choice in Choice), *classes]
        choice = Dropdown(options=options, value=self._decisions.get(path, Choice.KEEP), layout=Layout(width="9rem"))

        def decide(change: dict[str, Any]) -> None:
            self._decide(path, change["new"])
            status.value = repr(self)

        choice.observe(decide, names="value")
        return VBox([HTML(wrap_html(picture, facts)), choice], layout=Layout(width="12rem", margin="0 .5rem 1rem 0"))


def _merge_candidates(top_losses: pd.DataFrame, suspected: Findings | None) -> ImageFrame:
    """Return the suspected labels, then the top losses: path, label, suggestion, loss, reason."""
    records = []
    if suspected is not None and len(suspected):
        for finding in suspected[suspected["kind"] == "label issue"].to_dict("records"):
            suggestion = finding["reason"].removeprefix("looks like ")
            records.append({"path": finding["path"], "label": finding["label"], "suggestion": suggestion, "loss": None, "reason": "label issue"})
    for row in top_losses.to_dict("records"):
        records.append({"path": row["path"], "label": row["label"], "suggestion": row["prediction"], "loss": row["loss"], "reason": "top loss"})
    frame = pd.DataFrame(records, columns=["path", "label", "suggestion", "loss", "reason"])
    return ImageFrame(frame.drop_duplicates("path").reset_index(drop=True))
