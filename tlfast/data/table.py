"""The image table: one row per image, read from a folder, a zip, a CSV or parquet file, or the layout of a task.

All other modules work on the table and do not depend on the layout. Read `load_table` first.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from unicodedata import normalize

from ..core import DataError, DataSettings, ImageError, OnEvent, Settings, UsageError, ignore_event
from ..core.errors import list_some, make_printable
from ..core.settings import flag_name
from . import images
from .annotations import JSON, read_coco, resolve_image, use_label_studio_columns
from .class_folders import find_empty_folders, read_members
from .discovery import DOWNLOAD_FIRST, is_url, list_members, walk_files, walk_images
from .hub import is_hub_dataset
from .left_out import LeftOut
from .members import relative_path
from .parquet_images import describe_other_columns, holds_images, read_parquet_images
from .records import check_optional, check_unique, read_numbered_records
from .split import SPARE, SPLIT_NAMES, SPLITS, assign_groups, assign_splits, describe_share, is_drawn, limit_rows, subsample_train, use_known_splits
from .table_notes import find_divided_groups, find_missing_classes, find_similar_classes
from .task import Task
from .types import TABLES, TAR, DataSummary, Row, Unreadable
from .unpacking import Reader, explain_missing, unpack
from .webdataset import read_webdataset

MAX_UNREADABLE = 0.05  # largest fraction of unreadable images; more suggest a wrong folder or a broken copy

TABLE_SPLITS = {**SPLIT_NAMES, SPARE: SPARE}  # names of splits in tables, also in those of `Dataset.table`


@dataclass(frozen=True)
class ImageTable:
    """All images of a run. Every row has a split. The index of a label in `classes` is its class number.

    `source` is the folder, zip, table or address of a data set. `base` is the folder that the fingerprint leaves out of the paths; "" for that of
    `source`. `official_folds` is true if the splits are one of the official folds of the data: another fold has the same images in other splits.
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    source: str
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    official_folds: bool = False
    base: str = ""

    def part(self, split: str) -> list[Row]:
        """Return the rows of a split: train, valid or test."""
        return [row for row in self.rows if row.split == split]

    def summary(self) -> DataSummary:
        """Return the number of images per split and class, the skipped images and the notes."""
        counts = Counter((row.split, row.label) for row in self.rows)
        by_split = {split: {label: counts[split, label] for label in self.classes} for split in SPLITS if self.part(split)}
        groups = len({row.group for row in self.rows if row.group})
        return DataSummary(self.source, list(self.classes), by_split, groups, list(self.unreadable), list(self.notes))

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the name, file size, label and split of all images.

        It is the same on other machines. It does not notice other pixels in files of the same size: cached results also depend on `hash_files`.
        """
        root = Path(self.base) if self.base else Path(self.source) if Path(self.source).is_dir() else Path(self.source).parent
        digest = hashlib.sha256()
        for row, size in zip(self.rows, _file_sizes(self.rows), strict=True):
            digest.update(f"{relative_path(row.path, root)}\0{size}\0{row.label}\0{row.split}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def load_table(task: Task, settings: Settings, root: Path, on_event: OnEvent = ignore_event, known: Mapping[str, str] = MappingProxyType({})) -> ImageTable:
    """Read the images of `root` (folder, zip, CSV or parquet file), assign splits and classes, and apply `--limit` and `--train-pct`.

    The images of parquet files and tars are unpacked into the cache. In place of a drawn validation split, images have the splits that `known` has for
    their absolute paths, as of an earlier reading; others are training images. Raises UsageError for settings that do not fit the data, DataError for data
    that cannot be trained on.
    """
    rows, notes, official, base = read_rows(task, settings, root, on_event)
    rows, encoding_notes = _drop_undecodable(rows)
    rows, label_notes = unify_labels(rows)
    notes += encoding_notes + label_notes
    if settings.group_by in task.groupings:
        rows, official = [replace(row, split="") for row in rows], False
    if settings.group_by:
        rows = assign_groups(rows, task.groupings.get(settings.group_by, settings.group_by))
        if single := sum(row.group == row.path for row in rows):
            notes += [f"{single:,} file names do not match --group-by: each is a group of its own"]
    notes += _describe_unused_share(rows, settings)
    if known and is_drawn(rows, settings, official):
        rows, settings = use_known_splits(rows, known), replace(settings, fold=None)
    classes, class_notes = _find_classes(task, rows, root)
    read, internals = rows, settings.internals
    rows = assign_splits(rows, settings, seed=settings.split_seed, folds=internals.folds, official=official, by_size=internals.by_size)
    notes += describe_share(read, rows, settings)
    if settings.limit:
        rows = limit_rows(rows, settings.limit, settings.split_seed)
    if settings.train_pct < 1:
        rows = subsample_train(rows, settings.train_pct, settings.split_seed)
    notes += find_divided_groups(rows) + class_notes + find_similar_classes(classes) + find_missing_classes(rows, classes)
    source = settings.data if is_hub_dataset(settings.data) else str(root)
    is_official_fold = official and settings.fold is not None and any(row.split == "valid" for row in read)  # else it was drawn
    table = ImageTable(tuple(rows), classes, source, notes=tuple(notes), official_folds=is_official_fold, base=base)
    _check_splits(table)
    return table


def _drop_undecodable(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Return the rows without images whose names are not UTF-8, which tables and pages cannot hold, and a note on these."""
    odd = [row.path for row in rows if row.path.encode(errors="replace").decode() != row.path]
    if not odd:
        return rows, []
    if len(odd) == len(rows):
        hint = "Rename the images; if they look right in a terminal, set PYTHONUTF8=1 or another locale"
        raise DataError(f"the names of all {len(rows):,} images are not UTF-8, the first: {make_printable(odd[0])}", hint)
    note = f"images whose names are not UTF-8 are left out: {len(odd):,}, the first: {make_printable(odd[0])}"
    left_out = set(odd)
    return [row for row in rows if row.path not in left_out], [note]


def unify_labels(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Return the rows with one label for labels that differ only in their Unicode form, such as folders made on macOS and on Linux, and notes on these.

    Blanks at the ends of labels are removed: tables do not keep them.
    """
    stripped = {label: label.strip() or label for label in {row.label for row in rows}}
    forms: dict[str, set[str]] = {}
    for label in stripped.values():
        forms.setdefault(normalize("NFC", label), set()).add(label)
    united = {label: form for form, labels in forms.items() if len(labels) > 1 for label in labels}
    changed = {label: united.get(short, short) for label, short in stripped.items()}
    padded = sorted({short for label, short in stripped.items() if label != short})
    notes = [f"labels that differ only in their Unicode form are one class: {list_some(sorted(set(united.values())))}"] if united else []
    notes += [f"blanks at the ends of class names are removed: {list_some(padded)}"] if padded else []
    return [replace(row, label=changed[row.label]) for row in rows] if notes else rows, notes


def check_readable(table: ImageTable, on_event: OnEvent = ignore_event) -> ImageTable:
    """Open every image once. Returns the table without unreadable images, which are listed in `unreadable`.

    Raises DataError as `drop_unreadable` does.
    """
    paths = [row.path for row in table.rows]
    reasons = images.map_images(paths, _find_problem, "checking images", on_event)
    return drop_unreadable(table, tuple(Unreadable(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason))


def drop_unreadable(table: ImageTable, unreadable: tuple[Unreadable, ...]) -> ImageTable:
    """Return the table without the given images, which are listed in its `unreadable`.

    Raises DataError if more than 5 % of the images are unreadable, or if a split or class has no image left.
    """
    if len(unreadable) > MAX_UNREADABLE * len(table.rows):
        raise DataError(
            f"{len(unreadable)} of {len(table.rows)} images cannot be read, the first: {unreadable[0].path}: {unreadable[0].reason}",
            explain_missing(unreadable[0].path) or f"At most {MAX_UNREADABLE:.0%} may fail; tlfast data check lists them",
        )
    bad = {image.path: image.reason for image in unreadable}
    result = replace(table, rows=tuple(row for row in table.rows if row.path not in bad), unreadable=unreadable)
    readable = {row.label for row in result.part("train")}
    for row in table.part("train"):
        if row.label not in readable:
            raise DataError(
                f"no training image of class '{row.label}' can be read, the first: {row.path}: {bad[row.path]}", "Replace its images, or remove the class"
            )
    _check_splits(result)
    return result


def _find_problem(path: str) -> str:
    """Return why an image cannot be read, or ""."""
    try:
        images.open_image(path)
    except ImageError as error:
        return error.message
    return ""


# Reading


class _Reading(NamedTuple):
    """Rows of the data, and notes. `official`: the layout is that of the task, and the splits are the requested fold. `base` is that of the table."""

    rows: list[Row]
    notes: list[str]
    official: bool = False
    base: str = ""


def read_rows(task: Task, settings: Settings, root: Path, on_event: OnEvent) -> _Reading:
    """Read the rows of `root`."""
    left_out = LeftOut()
    if root.is_dir():
        official = task.read_layout(root, settings.fold)
        if official is not None:
            return _Reading(official, [], official=True)
        names = sorted(Path(path).relative_to(root).as_posix() for path in walk_images(root, left_out, settings.out))
        if not any("/" in name for name in names) and (shards := _find_shards(root, settings)):
            return _unpack(shards, root, settings, on_event)
        rows, notes = read_members(str(root) + os.sep, names, str(root), left_out)
        notes += find_empty_folders(root, rows, left_out)
        return _Reading(rows, notes + _describe_unused_columns(settings, root))
    if root.suffix.lower() == ".zip":
        rows, notes = read_members(f"{root}!/", list_members(root, left_out), str(root), left_out)
        return _Reading(rows, notes + _describe_unused_columns(settings, root))
    if _find_reader(root, settings):
        return _unpack([root], root, settings, on_event)
    if root.suffix.lower() in TABLES:
        return _Reading(*read_table(root, settings))
    if root.suffix.lower() == JSON:
        rows, notes = read_coco(root)
        return _Reading(rows, notes + _describe_unused_columns(settings, root))
    raise UsageError(
        f"{root} is not a folder, .zip, .csv, .parquet, .json or .tar",
        "Give --data a folder of class folders, a zip of one, a WebDataset tar, or a table of paths and labels",
    )


def _find_reader(path: Path, settings: DataSettings) -> Reader | None:
    """Return the reader of a file that holds images, None for other files."""
    if path.suffix.lower() == TAR:
        return read_webdataset
    return read_parquet_images if holds_images(path, settings.path_col) else None


def _describe_unused_columns(settings: DataSettings, root: Path) -> list[str]:
    """Return a note on columns that are named for images without a table."""
    named = [name for name in ("path_col", "label_col", "split_col", "group_col") if getattr(settings, name) != getattr(DataSettings, name)]
    return [f"{', '.join(map(flag_name, named))} {'has' if len(named) == 1 else 'have'} no effect: {root} is no table"] if named else []


def _describe_unused_share(rows: Iterable[Row], settings: DataSettings) -> list[str]:
    """Return a note on a `--valid-pct` by which no validation split is drawn."""
    has_valid = any(row.split == "valid" for row in rows)
    reason = "the data has a valid split" if settings.fold is None else f"{flag_name('fold')} chooses the validation images"
    unused = settings.valid_pct != DataSettings.valid_pct and (has_valid or settings.fold is not None)
    return [f"{flag_name('valid_pct')} has no effect: {reason}"] if unused else []


def _find_shards(root: Path, settings: Settings) -> list[Path]:
    """Return the files below a folder that hold images. Files of macOS such as `._0000.tar` are left out."""
    files = [Path(path) for path in walk_files(root, out=settings.out)]
    return [path for path in files if not path.name.startswith(".") and _find_reader(path, settings)]


def _unpack(shards: Sequence[Path], root: Path, settings: Settings, on_event: OnEvent) -> _Reading:
    """Return the images of the shards in the format of the first, and a note on the others."""
    read = _find_reader(shards[0], settings)
    assert read is not None
    paths = [path for path in shards if path.suffix.lower() == shards[0].suffix.lower()]
    others = [path.name for path in shards if path.suffix.lower() != shards[0].suffix.lower()]
    rows, folder, notes = unpack(paths, root, read, settings, on_event)
    if not rows:
        hint = f"Name the column of labels with {flag_name('label_col')}"
        if read is read_webdataset:
            hint = "A sample of a WebDataset tar has a label beside its image, as 0001.jpg and 0001.cls; unpack a tar of class folders, and give the folder"
        raise DataError(f"{root} has no image with a label", hint)
    notes += [f"the images are those of {paths[0].name}; files of another format are left out: {len(others)}, such as {others[0]}"] if others else []
    return _Reading(rows, notes + describe_other_columns(paths[0], settings.path_col, flag_name("path_col")), base=str(folder))


def read_table(path: Path, settings: DataSettings) -> tuple[list[Row], list[str]]:
    """Read a CSV, TSV or parquet file with one row per image. Returns the rows and notes.

    Image paths are relative to the file. Repeated rows are skipped. Raises UsageError for a missing column, DataError for an invalid row and
    for an image with two labels, splits or groups.
    """
    columns, records = read_numbered_records(path)
    settings = use_label_studio_columns(settings, columns)
    for column, name in ((settings.path_col, "path_col"), (settings.label_col, "label_col")):
        if column not in columns:
            raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(columns) or 'none'}", f"Name the column with {flag_name(name)}")
    check_optional(path, columns, settings)
    check_unique(path, columns, [settings.path_col, settings.label_col, settings.split_col, settings.group_col])
    rows: dict[str, Row] = {}
    repeated = padded = 0
    for line, record in records:
        row = _parse_csv_row(record, line, path, settings)
        padded += row.label != record[settings.label_col]
        if rows.setdefault(row.path, row) != row:
            raise DataError(f"{path.name} line {line}: {row.path} is also in an earlier row, with another label, split or group", "Keep one row per image")
        repeated += rows[row.path] is not row
    if not rows:
        raise DataError(f"{path} has a header but no rows", "Add one row per image, with its path and label")
    notes = [f"{repeated:,} rows repeat an image and are skipped"] if repeated else []
    return list(rows.values()), notes + ([f"blanks at the ends of {padded:,} labels are removed"] if padded else [])


def _parse_csv_row(record: dict[str, str], line: int, path: Path, settings: DataSettings) -> Row:
    name, label = ((record.get(column) or "").strip() for column in (settings.path_col, settings.label_col))
    if not name or not label:
        raise DataError(f"{path.name} line {line}: no {'path' if not name else f'label for {name}'}", "Fill in both columns, or delete the row")
    if is_url(name):
        raise DataError(f"{path.name} line {line}: {name} is a URL", DOWNLOAD_FIRST)
    if "\0" in name:
        raise DataError(f"{path.name} line {line}: the path {make_printable(name)} has a NUL character", "Correct the path, or delete the row")
    split = (record.get(settings.split_col) or "").strip()
    if split and split.lower() not in TABLE_SPLITS:
        raise DataError(f"{path.name} line {line}: '{split}' is not a split", "Use train, valid or test")
    return Row(resolve_image(path, name), label, TABLE_SPLITS.get(split.lower(), ""), (record.get(settings.group_col) or "").strip())


# Classes and checks


def _find_classes(task: Task, rows: list[Row], root: Path) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes in the order of the task, else sorted, and notes."""
    labels = {row.label for row in rows}
    if len(labels) < 2:
        hint = "make one sub-folder per class" if root.is_dir() or root.suffix.lower() == ".zip" else "give a file with more of them"
        if root.suffix.lower() in TABLES and root.is_file():
            hint = f"name the column of labels with {flag_name('label_col')}"
        raise DataError(f"{root} has only one class, '{next(iter(labels))}'", f"A classifier needs at least two; {hint}")
    if not task.classes or labels == set(task.classes):
        return task.classes or tuple(sorted(labels)), []
    known = tuple(label for label in task.classes if label in labels)
    classes = known if len(known) == len(labels) else tuple(sorted(labels))
    return classes, [f"the data has {len(labels)} classes, the task {task.name} has {len(task.classes)}; the classes of the data are used"]


def _check_splits(table: ImageTable) -> None:
    """Raise DataError if the train or valid split is empty, or a class has no training image."""
    for split in ("train", "valid"):
        if not table.part(split):
            hint = "Hold out images with --valid-pct" if split == "valid" else "Move images to train/, or set the split column of the CSV file to train"
            raise DataError(f"the {split} split of {table.source} is empty", hint)
    counts = Counter(row.label for row in table.part("train"))
    empty = [label for label in table.classes if not counts[label]]
    if empty:
        raise DataError(f"no training images of class '{empty[0]}'", "Add images of it to the train split, or remove the class")


def _file_size(path: str) -> int:
    """Return the size of a file in bytes, -1 if it has been removed, which is reported when it is opened."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def _file_sizes(rows: Sequence[Row]) -> Iterable[int]:
    """Yield the size of each image in bytes, or of the tar or parquet file that holds it. Each zip is opened once."""
    archives: dict[str, dict[str, int]] = {}
    for row in rows:
        archive, member = images.split_zip(row.path)
        if not member or images.split_packed(row.path):
            yield _file_size(images.split_archive(row.path)[0])
            continue
        if archive not in archives:
            with zipfile.ZipFile(archive) as file:
                archives[archive] = {info.filename: info.file_size for info in file.infolist()}
        yield archives[archive][member]
