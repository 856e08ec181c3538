"""Labelled images for training: from a folder, zip, CSV or parquet file, a DataFrame, or a task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from .. import tasks
from ..core import DataSettings, OnEvent, RunRecord, Settings, UsageError
from ..core.cache import make_key
from ..core.errors import suggest_name
from ..core.files import convert_os_errors, write_csv
from ..core.setting_checks import TABLES, check_run_name
from ..data import Finding, ImageTable, Preprocessing, Row, Task
from ..data.discovery import DOWNLOAD_FIRST, is_url
from ..data.run_images import open_run_data
from ..data.sources import open_data
from ..tasks import resolve_settings
from .display import ImageFrame, format_table, prepare_figures, wrap_html
from .keywords import check_count, check_names, check_text, with_keywords_in_messages
from .progress import show_progress
from .serial import keep_random_states, one_at_a_time

if TYPE_CHECKING:
    from typing import TypeAlias

    from matplotlib.figure import Figure

    from ..commands.check import Search, WrongLabels
    from ..data import DataSummary

    DataSource: TypeAlias = str | os.PathLike[str] | pd.DataFrame | Task

COLUMNS = ("path", "label", "split", "group")
SETTINGS = (*(f.name for f in fields(DataSettings)), "seed", "out")  # of a dataset: of the images, the split, and the folder of its runs


class Findings(ImageFrame):
    """Findings of the data check, one row for each: kind, path, label, split, and the related image.

    Attributes:
        page: HTML page of all findings, "" without findings.
        summary: numbers of images, their sizes and modes, and unreadable images.
        wrong_labels: estimated number of wrong labels, with its interval; None without `labels`.
    """

    _metadata: ClassVar[list[str]] = ["page", "summary", "wrong_labels"]
    page: str
    summary: DataSummary
    wrong_labels: WrongLabels | None = None


class Dataset:
    """Labelled images with a split. `tlfast.dataset` builds it.

    Attributes:
        task: the task, with its classes and default settings.
        settings: given settings of the data, such as `fold`.

    >>> data = tlfast.dataset("photos", valid_pct=0.3)  # doctest: +SKIP
    >>> data.show_batch(9), data.table, data.check()  # doctest: +SKIP
    """

    def __init__(self, task: Task, settings: Mapping[str, Any], of_run: RunRecord | None = None) -> None:
        self.task, self.settings = task, dict(settings)
        # The images of a run keep its splits.
        self._read: Callable[[Task, Settings, OnEvent], ImageTable] = partial(open_run_data, of_run) if of_run else open_data
        self._loaded: ImageTable | None = None

    @property
    @with_keywords_in_messages
    def _images(self) -> ImageTable:
        if self._loaded is None:
            with show_progress(quiet=False) as on_event:
                self._loaded = self._read(self.task, self.resolve({}), on_event)
        return self._loaded

    @with_keywords_in_messages
    def resolve(self, keywords: Mapping[str, Any]) -> Settings:
        """Return all settings for the given keywords. Raises UsageError."""
        return resolve_settings(self.task, None, {**self.settings, **check_names(keywords)})

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the class indices."""
        return list(self._images.classes)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The images as records with path, label, split and group."""
        return self._images.rows

    @property
    def table(self) -> ImageFrame:
        """The images: path, label, split (train, valid or test; spare: left out by `train_pct`) and group ("" without groups)."""
        return ImageFrame([vars(row) for row in self._images.rows], columns=list(COLUMNS))

    def __len__(self) -> int:
        return len(self._images.rows)

    @with_keywords_in_messages
    def show_batch(self, n: int = 9, **settings: Any) -> Figure:
        """Draw `n` training images as the network receives them, with random augmentation. Returns a matplotlib figure.

        Keywords are settings, such as `augment="strong"` or `size=224`.
        """
        import torch
        from matplotlib import pyplot

        from ..models.weights import IMAGENET_STATS
        from ..training.loaders import build_loaders

        resolved = replace(self.resolve(settings), bs=check_count("n", n), workers=0)
        prepare_figures()
        dls = build_loaders(self._images, Preprocessing.from_settings(resolved, IMAGENET_STATS), resolved, torch.device("cpu"))
        dls.train.show_batch(max_n=n)
        figure = pyplot.gcf()
        pyplot.close(figure)  # else a notebook shows it twice
        return figure

    @with_keywords_in_messages
    @one_at_a_time
    @keep_random_states
    def check(self, *, labels: bool = False, label_cutoff: float = 1.0, quiet: bool = False, **settings: Any) -> Findings:
        """Check every image: unreadable, duplicate, leaking or conflicting ones, as `tlfast data check` does.

        `labels` also searches for wrong labels and outliers, by training on five folds, which takes minutes; labels whose probability is above
        `label_cutoff` are not listed. Findings are written to `exports/<task>/checks`. The data is not changed. Raises TlfastError.
        """
        from ..commands.check import check_cutoff, check_data

        check_cutoff(label_cutoff, labels)
        search: Search | None = None
        if labels:
            from ..commands.check_labels import search_labels

            search = partial(search_labels, cutoff=label_cutoff)
        with show_progress(quiet) as on_event:
            report = check_data(self.task, self.resolve(settings), on_event=on_event, search=search, read=self._read)
        found = Findings([vars(finding) for finding in report.findings], columns=[f.name for f in fields(Finding)])
        found.page, found.summary, found.wrong_labels = report.page, report.summary, report.wrong_labels
        return found

    @with_keywords_in_messages
    def without(self, *kinds: str, quiet: bool = False, **settings: Any) -> Dataset:
        """Return a dataset without images of these kinds: duplicates, conflicts, unreadable, leaks. No file is changed. Raises TlfastError."""
        from ..commands.check import DROPPABLE, check_data

        if not kinds:
            raise UsageError("no kind of images is named", f"Name at least one: {', '.join(DROPPABLE)}")
        for kind in kinds:
            if not isinstance(kind, str) or kind not in DROPPABLE:
                raise UsageError(f"{kind!r} is not a kind of images", suggest_name(str(kind), list(DROPPABLE)) or f"Kinds: {', '.join(DROPPABLE)}")
        with show_progress(quiet) as on_event:
            report = check_data(self.task, self.resolve(settings), list(kinds), on_event, read=self._read)
        return Dataset(self.task, {name: value for name, value in self.settings.items() if name in ("seed", "out")} | {"data": report.table})

    def __repr__(self) -> str:
        counts = self._images.summary().counts
        splits = ", ".join(f"{split} {sum(labels.values()):,}" for split, labels in counts.items())
        return f"Dataset {self.task.name}: {len(self):,} images of {len(self.classes)} classes ({splits})"

    def _repr_html_(self) -> str:
        counts = self._images.summary().counts
        rows = [(label, *(counts[split][label] for split in counts)) for label in self.classes]
        rows.append(("all", *(sum(labels.values()) for labels in counts.values())))
        return wrap_html(format_table((self.task.name, *counts), rows))


@with_keywords_in_messages
def dataset(source: DataSource, name: str = "", **settings: Any) -> Dataset:
    """Open labelled images.

    `source` is a folder of class folders, a zip of one, a CSV or parquet file, `hf://datasets/user/name` on the Hugging Face hub, the name of a task, a .py
    file with a task, a Task, or a DataFrame with the columns path and label, and optionally split and group. `name` is the folder of its runs in `exports`;
    by default that of the file or folder, "table" for a DataFrame. Keywords are the settings of the data: `fold`, `valid_pct`, `group_by`, `limit`,
    `path_col`, ... A DataFrame is written to `exports/<name>/tables`, so that its runs can be evaluated later. Raises UsageError or DataError.

    >>> tlfast.dataset("digits")  # doctest: +SKIP
    Dataset digits: 1,797 images of 10 classes (train 1,438, valid 359)
    """
    given = _check_data_settings(settings)
    if not isinstance(source, (str, os.PathLike, pd.DataFrame, Task)):
        raise UsageError(f"{type(source).__name__} is not a source of images", "Give a path, the name of a task, a Task or a DataFrame")
    name = check_text("name", name, 'name="photos"')
    if name and (problem := check_run_name(name)):
        raise UsageError(f"name='{name}' {problem}")
    if isinstance(source, pd.DataFrame):
        name = name or "table"
        task = tasks.registered_tasks().get(name) or Task(name=name, title="images of a DataFrame")
        file = write_table(_read_frame(source, given), str(given.get("out", Settings.out)), name)
        kept = {key: value for key, value in given.items() if not key.endswith("_col")}  # the file has the usual names of columns
        return Dataset(task, {**kept, "data": file})
    task, path = (tasks.register_task(source), "") if isinstance(source, Task) else tasks.find_task(os.fspath(source))
    if name and not path:
        raise UsageError(f"name='{name}' is given for the task '{task.name}'", "Leave out name: a task has its own")
    return Dataset(replace(task, name=name) if name else task, {**given, **({"data": path} if path else {})})


def open_source(data: Dataset | DataSource, settings: Mapping[str, Any]) -> tuple[Dataset, dict[str, Any]]:
    """Return a dataset for any source that `dataset` accepts, and the settings that remain for a training.

    The names of the columns of a DataFrame do not remain: its dataset is a CSV file with the usual names.
    """
    if isinstance(data, Dataset):
        return data, dict(settings)
    if not isinstance(data, pd.DataFrame):
        return dataset(data), dict(settings)
    columns = {name: value for name, value in settings.items() if name.endswith("_col")}
    rest = {name: value for name, value in settings.items() if name not in columns}
    place = {"out": rest["out"]} if "out" in rest else {}
    return dataset(data, **columns, **place), rest


def _check_data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a dataset. Raises UsageError for those of a training."""
    given = check_names(settings)
    for name in given:
        if name not in SETTINGS:
            hint = suggest_name(name, SETTINGS) or f"Give it to tlfast.train; a dataset takes: {', '.join(sorted(SETTINGS))}"
            raise UsageError(f"'{name}' is not a setting of the data", hint)
    return given


# Tables from Python


def write_table(rows: Sequence[Row], out: str, name: str) -> str:
    """Write rows as CSV to `<out>/<name>/tables`, under a name made from the content. Returns the absolute path. Raises RunError."""
    rows = [replace(row, path=os.path.abspath(row.path)) for row in rows]
    path = Path(os.path.expanduser(out)).resolve() / name / TABLES / f"{make_key(rows=[vars(row) for row in rows])}.csv"
    with convert_os_errors(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            write_csv(temporary, rows)
            os.replace(temporary, path)  # the table is complete or absent
    return str(path)


def _read_frame(frame: pd.DataFrame, settings: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a DataFrame. Raises UsageError if it is empty, or a path or label is missing."""
    if not len(frame):
        raise UsageError("the DataFrame has no rows", "Give one row per image, with its path and label")
    frame = frame.rename(columns=str)
    names = {column: str(settings.get(f"{column}_col", column)) for column in COLUMNS}
    for column in ("path", "label"):
        if names[column] not in frame.columns:
            found = ", ".join(map(str, frame.columns)) or "none"
            raise UsageError(f"the DataFrame has no column '{names[column]}'; it has: {found}", f"Name the column with {column}_col=...")
        if (count := list(frame.columns).count(names[column])) > 1:
            raise UsageError(f"the DataFrame has {count} columns '{names[column]}'", "Rename or remove the others")
        if (missing := frame[names[column]].isna()).any():
            raise UsageError(f"row {frame.index[missing.argmax()]} of the DataFrame has no {column}", "Drop such rows first: frame.dropna(...)")
    for number, path in zip(frame.index, frame[names["path"]], strict=True):
        if not isinstance(path, str | os.PathLike):
            problem = f"column '{names['path']}' of the DataFrame holds {type(path).__name__}, not paths"
            raise UsageError(problem, "Save images as files first, and give their paths")
        if not (text := os.fspath(path).strip()):
            raise UsageError(f"row {number} of the DataFrame has no path", "Give the path of an image, or drop the row")
        if is_url(text):
            raise UsageError(f"row {number} of the DataFrame: {text} is a URL", DOWNLOAD_FIRST)
    values = {column: _to_text(frame[name]) for column, name in names.items() if name in frame.columns}
    return [Row(**dict(zip(values, cells, strict=True))) for cells in zip(*values.values(), strict=True)]


def _to_text(column: pd.Series) -> pd.Series:
    """Return a column as text; missing values are ""."""
    values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column  # with the types of the categories
    return values.astype(str).where(column.notna(), "")  # as text first: other types of columns take no ""
