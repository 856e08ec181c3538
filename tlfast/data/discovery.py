"""Names of images: below a folder, in a zip, in a column of a CSV file, by a pattern, on stdin."""

from __future__ import annotations

import csv
import glob
import os
import re
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ..core.errors import DataError, UsageError
from . import images

STDIN = "-"
ADDRESSES = ("http://", "https://")
TABLES = (".csv", ".tsv")


def walk_images(root: str | Path) -> Iterator[str]:
    """Yield the image files below a folder, folder by folder and sorted in each; hidden folders and links to folders are left out."""
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if images.is_image_name(name):
                yield os.path.join(folder, name)


def list_members(archive: str | Path) -> list[str]:
    """Return the image names in a zip, sorted. Raises DataError, also where one names a place outside of it."""
    try:
        with zipfile.ZipFile(archive) as file:
            names = [info.filename for info in file.infolist() if not info.is_dir()]
    except (OSError, *images.DAMAGED_ZIP) as error:
        raise DataError(f"{archive} is not a zip that can be read ({error})", "Check it with: python -m zipfile -t FILE") from None
    for name in names:
        if problem := is_outside(name):
            hint = "It was made by hand or with ill intent; if you trust it, unpack it yourself and name the folder"
            raise DataError(f"{archive}: '{name}' {problem}; nothing was read", hint)
    return sorted({name for name in names if images.is_image_name(name) and not name.startswith("__MACOSX/")})  # of two that are called the same one is read


def inner_path(name: str) -> PurePosixPath:
    """Return the path of a zip's member."""
    return PurePosixPath(name.replace("\\", "/"))  # some Windows tools write "\"


def is_outside(name: str) -> str:
    """Say how the name of a zip's member leads out of the zip; nothing where it does not."""
    path = inner_path(name)
    if path.is_absolute() or re.match("[A-Za-z]:", path.as_posix()):
        return "has an absolute path"
    return "points outside the archive" if ".." in path.parts else ""


def read_records(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns of a CSV (or ;- or tab-separated) file and its records. Raises DataError."""
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path} is empty", "Give it a line of column names and a line for each image")
    try:
        delimiter = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t").delimiter
    except csv.Error:  # a single column
        delimiter = ","
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    return list(reader.fieldnames or []), reader


def gather_sources(sources: Sequence[str], column: str = "path", stdin: Iterable[str] = ()) -> Iterator[str]:
    """Yield the name of each image that files, folders, zips, CSV files, patterns, addresses and `-` (a list on stdin) name, one by one.

    A plain name is kept whether it exists or not: it will be a row that says so. Raises UsageError or DataError.
    """
    for source in sources:
        yield from _expand(source, column, stdin)


def _expand(source: str, column: str, stdin: Iterable[str]) -> Iterator[str]:
    suffix = os.path.splitext(source)[1].lower()
    if source == STDIN:
        return (line.strip() for line in stdin if line.strip())
    if is_address(source):
        return iter([source])
    if os.path.isdir(source):
        return walk_images(source)
    if suffix == ".zip" and os.path.isfile(source):
        return (f"{source}!/{name}" for name in list_members(source))
    if suffix in TABLES and os.path.isfile(source):
        return _read_column(Path(source), column)
    if not os.path.exists(source) and glob.has_magic(source):
        return iter(sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path)))
    return iter([source])


def is_address(source: str) -> bool:
    return source.lower().startswith(ADDRESSES)


def resolve_beside(table: Path, name: str) -> str:
    """Return the path of an image that a table names, relative to the table; Windows' backslashes are understood where no file is called so."""
    path = table.parent / name
    return str(path if "\\" not in name or path.exists() else table.parent / name.replace("\\", "/"))


def _read_column(path: Path, column: str) -> Iterator[str]:
    columns, found = read_records(path)
    if column not in columns:
        raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(columns) or 'none'}", "Name the column of paths with --column")
    for record in found:
        name = (record.get(column) or "").strip()
        if name:
            yield name if is_address(name) else resolve_beside(path, name)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})", "Save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def watch_folder(folder: str, seconds: float = 1.0) -> Iterator[str]:
    """Yield each image below a folder, and then each that is put there, for ever; a file that still grows waits until it does not.

    One whose size changes after that, because its writer had only paused, is given again. Raises UsageError where it is no folder.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"--watch {folder}: not a folder", "Name the folder into which images are put")
    given: dict[str, int] = {}
    before: dict[str, int] = {}
    while True:
        sizes = {path: _file_size(path) for path in walk_images(folder)}
        for path, size in sizes.items():
            if size == before.get(path) and size != given.get(path):
                given[path] = size
                yield path
        before = sizes
        time.sleep(seconds)


def _file_size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # gone again
        return -1
