"""The image table: one row an image, with its label, part and group; from a folder, a zip, a CSV file or a task's own layout.

Nothing below this module knows which it was.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from ..core.errors import DataError, ImageError, UsageError
from ..core.events import OnEvent, Progress, ignore_event
from ..core.settings import Settings, flag_name
from . import images
from .discovery import TABLES, list_members, read_records, resolve_beside, walk_images
from .split import SPLIT_NAMES, SPLITS, assign_groups, assign_splits, limit_rows, subsample_train
from .task import Task
from .types import DataSummary, Row, Unreadable

MAX_UNREADABLE = 0.05  # share of unreadable images above which something larger is wrong
BLOCK = 256  # images decoded ahead of whoever takes them

T = TypeVar("T")


@dataclass(frozen=True)
class ImageTable:
    """All images of a run. `classes` gives each label its index; every row has a part."""

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    source: str
    unreadable: tuple[Unreadable, ...] = ()
    notes: tuple[str, ...] = ()
    own_folds: bool = False  # the parts are one of the data's own folds: another has the same images in other parts

    def part(self, split: str) -> list[Row]:
        return [row for row in self.rows if row.split == split]

    def summary(self) -> DataSummary:
        """Count the images of each part and class."""
        counts = Counter((row.split, row.label) for row in self.rows)
        by_part = {split: {label: counts[split, label] for label in self.classes} for split in SPLITS if self.part(split)}
        groups = len({row.group for row in self.rows if row.group})
        return DataSummary(self.source, list(self.classes), by_part, groups, list(self.unreadable), list(self.notes))

    def fingerprint(self) -> str:
        """Return a SHA-256 of every image's name, size in bytes, label and part, in hex: two runs with the same saw the same data."""
        root = Path(self.source) if Path(self.source).is_dir() else Path(self.source).parent
        digest = hashlib.sha256()
        for row, size in zip(self.rows, _file_sizes(self.rows), strict=True):
            digest.update(f"{os.path.relpath(row.path, root)}\0{size}\0{row.label}\0{row.split}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def load_table(task: Task, settings: Settings, root: Path) -> ImageTable:
    """Read, split and limit the images of `root` (folder, zip or CSV file). Raises DataError or UsageError."""
    rows, notes, own = _read_rows(task, settings, root)
    if settings.group_by:
        rows = assign_groups(rows, settings.group_by)
    classes, note = _find_classes(task, rows, root)
    rows = assign_splits(rows, settings, own)
    if settings.limit:
        rows = limit_rows(rows, settings.limit, settings.split_seed)
    if settings.train_pct < 1:
        rows = subsample_train(rows, settings)
    table = ImageTable(tuple(rows), classes, str(root), notes=tuple(notes + note), own_folds=own and settings.fold is not None)
    _check_parts(table)
    return table


def check_readable(table: ImageTable, on_event: OnEvent = ignore_event) -> ImageTable:
    """Open every image once; return the table of those that can be read, the others named in `unreadable`. Raises as `without` does."""
    paths = [row.path for row in table.rows]
    reasons = map_images(paths, _find_problem, "checking images", on_event)
    return drop_unreadable(table, tuple(Unreadable(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason))


def drop_unreadable(table: ImageTable, unreadable: tuple[Unreadable, ...]) -> ImageTable:
    """Return the table without the images that cannot be read; they are named in it.

    Raises DataError where they are more than 5 % or a class is left empty.
    """
    if len(unreadable) > MAX_UNREADABLE * len(table.rows):
        raise DataError(
            f"{len(unreadable)} of {len(table.rows)} images cannot be read, the first: {unreadable[0].path}: {unreadable[0].reason}",
            f"At most {MAX_UNREADABLE:.0%} may fail; tlfast data check names them all",
        )
    bad = {image.path: image.reason for image in unreadable}
    result = replace(table, rows=tuple(row for row in table.rows if row.path not in bad), unreadable=unreadable)
    left = {row.label for row in result.part("train")}
    for row in table.part("train"):
        if row.label not in left:
            raise DataError(
                f"no training image of class '{row.label}' can be read, the first: {row.path}: {bad[row.path]}", "Mend its images, or remove the class"
            )
    _check_parts(result)
    return result


def map_images(paths: Sequence[str], work: Callable[[str], T], phase: str, on_event: OnEvent) -> Iterator[T]:
    """Yield `work(path)` of each path in order; threads do the decoding, which releases Python's lock.

    They are given a block of paths at a time, so that results wait in memory for a block only, however many images there are.
    """
    with ThreadPoolExecutor(max_workers=min(32, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield from pool.map(work, block)
            on_event(Progress(phase, start + len(block), len(paths)))


def hash_files(paths: Sequence[str]) -> str:
    """Return a SHA-256 of the files' absolute paths, sizes and times of change (an archive's own for its members), in hex."""
    digest, last, facts = hashlib.sha256(), "", ""
    for path in paths:
        file, member = images.split_zip(path)
        if file != last:  # an archive is looked at once for all its members, which follow one another
            last, facts = file, f"{os.path.abspath(file)}\0{_stat(file)}"
        digest.update(f"{facts}\0{member}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stat(file: str) -> str:
    try:
        stat = os.stat(file)
    except OSError:  # it will be named among the unreadable ones
        return "missing"
    return f"{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"  # the last also tells of permissions


def _find_problem(path: str) -> str:
    try:
        images.open_image(path)
    except ImageError as error:
        return error.message
    return ""


# Reading


def _read_rows(task: Task, settings: Settings, root: Path) -> tuple[list[Row], list[str], bool]:
    """Return the rows of whatever `root` is, remarks, and whether the layout was the task's own (its parts are the fold asked for)."""
    if root.is_dir():
        own = task.rows(root, settings.fold) if task.rows else None
        if own is not None:
            return own, [], True
        rows, notes = read_members(str(root) + os.sep, sorted(Path(path).relative_to(root).as_posix() for path in walk_images(root)), str(root))
        return rows, notes + _find_empty_folders(root, rows), False
    if root.suffix.lower() == ".zip":
        return *read_members(f"{root}!/", list_members(root), str(root)), False
    if root.suffix.lower() in TABLES:
        return *read_csv(root, settings), False
    raise UsageError(f"{root} is not a folder, a .zip or a .csv", "Give --data a folder of class folders, a zip of one, or a CSV file")


def read_members(prefix: str, names: list[str], source: str) -> tuple[list[Row], list[str]]:
    """Make rows of image names such as `train/cat/1.jpg` or `cat/1.jpg`; folders wrapped around them all are ignored.

    Returns the rows and remarks on images that were left out. Raises DataError where there are no images in class folders.
    """
    paths = [PurePosixPath(name).parts for name in names]
    if not paths:
        raise DataError(f"no images in {source}", f"Images end in one of: {', '.join(sorted(images.SUFFIXES))}")
    depth = _count_wrapping_folders(paths)
    parted = _is_parted(paths, depth)
    rows, stray = [], 0
    for name, path in zip(names, paths, strict=True):
        inner = path[depth:]
        split = SPLIT_NAMES[inner[0].lower()] if parted else ""
        inner = inner[1:] if parted else inner
        if len(inner) < 2:
            stray += 1
            continue
        rows.append(Row(prefix + name, inner[0], split))
    if not rows:
        raise DataError(f"the {stray} images of {source} lie in no class folder", "Make one sub-folder for each class, named after it")
    return rows, [f"{stray} images outside any class folder are left out"] if stray else []


def _find_empty_folders(root: Path, rows: list[Row]) -> list[str]:
    """Name the folders beside the class folders that hold no image: classes that someone means to fill, perhaps."""
    parents: set[Path] = set()
    for row in rows:
        parts = Path(row.path).relative_to(root).parts
        parents.add(root.joinpath(*parts[: parts.index(row.label)]))
    labels = {row.label for row in rows}
    empty = sorted({path.name for parent in parents for path in parent.iterdir() if path.is_dir() and path.name not in labels and path.name[0] != "."})
    return [f"folders without images are no classes: {', '.join(empty)}"] if empty else []


def read_csv(path: Path, settings: Settings) -> tuple[list[Row], list[str]]:
    """Read a CSV (or ;- or tab-separated) file of images; paths are relative to it. Returns the rows and remarks.

    An image that is named again is left out. Raises UsageError or DataError, also where it has another label or part then.
    """
    columns, found = read_records(path)
    for column, name in ((settings.path_col, "path_col"), (settings.label_col, "label_col")):
        if column not in columns:
            raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(columns) or 'none'}", f"Name the column with {flag_name(name)}")
    for column, name, usual in ((settings.split_col, "split_col", "split"), (settings.group_col, "group_col", "group")):
        if column not in columns and column != usual:
            raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(columns)}", f"Name the column with {flag_name(name)}, or leave it out")
    rows: dict[str, Row] = {}
    again = 0
    for line, record in enumerate(found, start=2):
        row = _parse_csv_row(record, line, path, settings)
        if rows.setdefault(row.path, row) != row:
            raise DataError(f"{path.name} line {line}: {row.path} was another row already, with another label, part or group", "Give each image one row")
        again += rows[row.path] is not row
    if not rows:
        raise DataError(f"{path} has a header but no rows", "Add a row for each image: its path and its label")
    return list(rows.values()), [f"{again} rows name an image again and are left out"] if again else []


def _parse_csv_row(record: dict[str, str], line: int, path: Path, settings: Settings) -> Row:
    name, label = ((record.get(column) or "").strip() for column in (settings.path_col, settings.label_col))
    if not name or not label:
        raise DataError(f"{path.name} line {line}: no {'path' if not name else f'label for {name}'}", "Give every row both, or delete the row")
    split = (record.get(settings.split_col) or "").strip()
    if split and split.lower() not in SPLIT_NAMES:
        raise DataError(f"{path.name} line {line}: '{split}' is not a part", "Use train, valid and test")
    return Row(resolve_beside(path, name), label, SPLIT_NAMES.get(split.lower(), ""), (record.get(settings.group_col) or "").strip())


def _count_wrapping_folders(paths: list[tuple[str, ...]]) -> int:
    """Count the leading folders that hold everything and are neither a part nor a class."""
    depth = 0
    while all(len(path) > depth + 2 for path in paths) and len({path[depth] for path in paths}) == 1 and not _is_parted(paths, depth):
        depth += 1
    return depth


def _is_parted(paths: list[tuple[str, ...]], depth: int) -> bool:
    tops = {path[depth].lower() for path in paths if len(path) > depth + 1}
    return bool(tops) and tops <= SPLIT_NAMES.keys() and any(SPLIT_NAMES[top] == "train" for top in tops)


# Classes, parts and subsets


def _find_classes(task: Task, rows: list[Row], root: Path) -> tuple[tuple[str, ...], list[str]]:
    found = {row.label for row in rows}
    if len(found) < 2:
        raise DataError(f"{root} holds one class only, '{next(iter(found))}'", "A classifier needs at least two; make one sub-folder for each class")
    if not task.classes or found == set(task.classes):
        return task.classes or tuple(sorted(found)), []
    known = tuple(label for label in task.classes if label in found)
    classes = known if len(known) == len(found) else tuple(sorted(found))
    return classes, [f"the data has {len(found)} classes where the task {task.name} has {len(task.classes)}; the data's are used"]


def _check_parts(table: ImageTable) -> None:
    """Refuse a table that cannot train or be judged: an empty part, or a class with nothing to learn from."""
    for split in ("train", "valid"):
        if not table.part(split):
            hint = "--valid-pct draws a valid part" if split == "valid" else "Move images to train/, or say so in the CSV's split column"
            raise DataError(f"the {split} part of {table.source} is empty", hint)
    counts = Counter(row.label for row in table.part("train"))
    empty = [label for label in table.classes if not counts[label]]
    if empty:
        raise DataError(f"no training images of class '{empty[0]}'", "Add images of it to the train part, or remove the class")


def _file_sizes(rows: Sequence[Row]) -> Iterable[int]:
    """Yield each image's size in bytes; one look at an archive serves all its members."""
    archives: dict[str, dict[str, int]] = {}
    for row in rows:
        archive, member = images.split_zip(row.path)
        if not member:
            yield os.path.getsize(row.path)
            continue
        if archive not in archives:
            with zipfile.ZipFile(archive) as file:
                archives[archive] = {info.filename: info.file_size for info in file.infolist()}
        yield archives[archive][member]
