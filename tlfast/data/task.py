"""The description of a data set: classes, default settings, and the sources of its images.

To add a task, define `TASK` in a module of the package `tasks`, in a file of your own (`tlfast train mytask.py`), or in an installed package with
an entry point of the group `tlfast.tasks`. A minimal task has a name and a title:

>>> Task(name="cats", title="cats and dogs", classes=("cat", "dog"), partial={"epochs": 5}).presets("partial")
{'epochs': 5}
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

from ..core import DataError, TlfastError, UsageError
from .split import SPLITS
from .types import Row, write_value


@dataclass(frozen=True)
class Source:
    """A public source of the images of a task: files to download, or a data set of the Hugging Face hub.

    Attributes:
        title: Name of the source in messages.
        files: (URL, file name) of each file to download. The first is the archive with the images; `Task.arrange` finds the others beside it.
        hub_dataset: Id of a hub data set, such as "owner/name". It is read from its Parquet conversion, and `files` is ignored.
        size: Approximate size of the first file in bytes. A file that differs by more than 5 % is rejected. None: not checked.
        images: Number of images in the archive. Another number is rejected. None: not checked.

    >>> Source("a mirror", files=(("https://example.org/cats.zip", "cats.zip"),), images=2000).images
    2000
    """

    title: str
    files: tuple[tuple[str, str], ...] = ()
    hub_dataset: str = ""
    size: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Task:
    """A data set: its classes, its default settings and the sources of its images.

    Attributes:
        name: Name on the command line, of `data/<name>` and of `exports/<name>`.
        title: One line for lists of tasks and for reports.
        classes: Class names in the order of the class numbers. Empty: the sorted labels of the data.
        defaults: Settings for all strategies, by field name of `Settings`. They replace the declared defaults. `depth`, `minutes` and `preset` are not
            among them: they choose the layers of one training.
        partial: Settings for `--partial`, in addition to `defaults`.
        depth: Settings for `--depth`, in addition to `defaults` and `full`.
        full: Settings for `--full`, in addition to `defaults`.
        aliases: Other spellings of class names -> class name. Used for hub data sets; `arrange` handles those of other sources.
        licence: Licence of the images.
        homepage: URL of the data set.
        sources: Sources for `tlfast data get`, tried in order.
        by_hand: Hint if all sources fail: an instruction to download the data manually, without a final period.
        groupings: Values of `--group-by` -> regular expression for file names. With them, official splits are not used: new ones keep groups undivided.
        rows: Reader of a special layout. `rows(root, fold)` returns the rows of folder `root`, with the splits of the official `fold` (or of the
            default fold for None), or None if `root` does not have this layout. Class folders need no reader.
        arrange: Converter of a download for `tlfast data import` and `get`. `arrange(source, target, beside)` fills the empty folder `target`
            from `source` (an unpacked zip, a folder or a CSV file); `beside` is the folder of `source`, where further files such as label tables may be.
        make: Generator of the images for tasks without download: `make(target)` fills the empty folder `target`.
        file: Path of the .py file that defines the task; "" for registered tasks. It is set when the file is loaded.

    >>> Task("cats", "cats and dogs", ("cat", "dog"), defaults={"size": 96}, full={"epochs": 6}).presets("full")
    {'epochs': 6}
    """

    name: str
    title: str
    classes: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    partial: Mapping[str, Any] = field(default_factory=dict)
    depth: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    homepage: str = ""
    sources: tuple[Source, ...] = ()
    by_hand: str = ""
    groupings: Mapping[str, str] = field(default_factory=dict)
    rows: Callable[[Path, int | None], Iterable[Row] | None] | None = None
    arrange: Callable[[Path, Path, Path], None] | None = None
    make: Callable[[Path], None] | None = None
    file: str = ""

    @property
    def argument(self) -> str:
        """How commands name the task: by its name, or by its file."""
        return shlex.quote(self.file) if self.file else self.name

    def presets(self, strategy: str) -> dict[str, Any]:
        """Return the settings of the task for a strategy; none for a strategy without presets."""
        return dict({"partial": self.partial, "depth": {**self.full, **self.depth}, "full": self.full}.get(strategy, {}))

    def read_layout(self, root: Path, fold: int | None) -> list[Row] | None:
        """Return the rows of a folder by `rows`, None for another layout.

        Raises DataError if there are none, UsageError for a wrong split or an error in the code of a task file.
        """
        try:
            rows = self.rows(root, fold) if self.rows else None
            return None if rows is None else self._check_rows(rows, root)
        except TlfastError:
            raise
        except Exception as error:
            if not self.file:
                raise
            hint = "Correct the file; --debug shows the traceback"
            raise UsageError(f"rows(root, fold) in {self.file} failed: {type(error).__name__}: {error}", hint) from error

    def _check_rows(self, found: Iterable[Row], root: Path) -> list[Row]:
        """Return the rows with text in place of `Path` objects and numbers."""
        place = f"rows(root, fold) of {self.file or f'the task {self.name}'}"
        rows, known = list[Row](), dict[str, Row]()
        for row in found:
            if not isinstance(row, Row):
                raise UsageError(f"{place}: {row!r:.80} is not a Row", "Return a list of tlfast.Row(path, label, split, group)")
            row = Row(os.fspath(row.path), write_value(row.label), write_value(row.split), write_value(row.group))
            if row.split not in ("", *SPLITS):
                raise UsageError(f"{place}: '{row.split}' is not a split, for {row.path}", "Use train, valid or test, or '' for a drawn split")
            if not row.label:
                raise UsageError(f"{place}: {row.path} has no label", "Leave out images without a label")
            if row.path not in known or row.split:  # an image that is repeated without a split could be drawn into two
                rows.append(row)
            if known.setdefault(row.path, row) != row:
                raise UsageError(f"{place}: {row.path} has two labels, splits or groups", "Return one row for each image")
        if not rows:
            raise DataError(f"{place} found no image in {root}", "Give the folder of the images with --data")
        return rows


def normalise_name(label: str) -> str:
    """Return a label in lower case and the usual Unicode form, without spaces, "-" and "_".

    >>> normalise_name("Snake-Weed")
    'snakeweed'
    """
    return normalize("NFC", re.sub(r"[\s_-]", "", label).lower())
