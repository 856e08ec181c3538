"""The list of the images of a sharded prediction, in parquet files: written once in a stream, read by range."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..core import OnEvent, Progress, RunError
from ..core.errors import first_line
from ..data import images
from ..data.discovery import is_url

CHUNK = 10_000  # images in a file
STAGING = "_manifest.partial"  # of an unfinished list
FOLDER = "_manifest"  # readers of a folder of parquet files leave out names that begin with "_" or "."


class Input(NamedTuple):
    """One image.

    Attributes:
        path: its path as given, the path of a member or row, or an address.
        bytes: size of the file, or of the zip, tar or parquet file that holds the image; -1 if it cannot be found.
        modified: time of its last change in nanoseconds; -1 if it cannot be found.
    """

    path: str
    bytes: int
    modified: int


def describe_input(path: str) -> Input:
    """Return the image with the size and time of its file now."""
    if is_url(path):
        return Input(path, -1, -1)
    try:
        status = os.stat(images.split_archive(path)[0])
    except (OSError, ValueError):  # ValueError: a NUL character in the path
        return Input(path, -1, -1)
    return Input(path, status.st_size, status.st_mtime_ns)


def is_manifest(path: Path) -> bool:
    """Return whether a folder is a list of images, finished or not, and holds nothing else."""
    named = path.name in (FOLDER, STAGING) and path.is_dir() and not path.is_symlink()
    return named and all(re.fullmatch(r"\d{6}\.parquet", file.name) for file in path.iterdir())


def write_manifest(folder: Path, paths: Iterable[str], on_event: OnEvent) -> int:
    """Write the list of images to `folder/_manifest`, in constant memory. Returns their number. An unfinished list is replaced."""
    total = 0
    for rows in write_chunks(folder, paths):
        total += rows
        on_event(Progress("listing images", total, 0))
    finish_manifest(folder)
    return total


def write_chunks(folder: Path, paths: Iterable[str]) -> Iterator[int]:
    """Write the list of images file by file to a folder that replaces an unfinished list. Yields the number of images of each file."""
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    remaining, number = map(describe_input, paths), 0
    while rows := list(islice(remaining, CHUNK)):
        _write_chunk(staging / _name_chunk(number), rows)
        yield len(rows)
        number += 1


def finish_manifest(folder: Path) -> None:
    """Name the list of `write_chunks` as complete."""
    os.rename(folder / STAGING, folder / FOLDER)


def _name_chunk(number: int) -> str:
    return f"{number:06d}.parquet"


def _write_chunk(path: Path, rows: list[Input]) -> None:
    import pyarrow as pa  # imported here, as in `writers`
    from pyarrow import parquet

    types = (pa.binary(), pa.int64(), pa.int64())  # names of files may not be UTF-8
    columns = ([os.fsencode(row.path) for row in rows], [row.bytes for row in rows], [row.modified for row in rows])
    parquet.write_table(pa.table([pa.array(values, kind) for values, kind in zip(columns, types, strict=True)], names=Input._fields), path)


def read_manifest(folder: Path, start: int, stop: int) -> Iterator[Input]:
    """Yield the images `start` to `stop` (excluded) of the list. Raises RunError if it is damaged."""
    for number in range(start // CHUNK, -(-stop // CHUNK)):
        first = number * CHUNK
        yield from _read_chunk(folder / FOLDER / _name_chunk(number), max(0, start - first), min(stop - first, CHUNK))


def read_staged(folder: Path, number: int) -> list[Input]:
    """Return the images of one file of an unfinished list. Raises RunError if it is damaged."""
    return list(_read_chunk(folder / STAGING / _name_chunk(number), 0, CHUNK))


def _read_chunk(path: Path, start: int, stop: int) -> Iterator[Input]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise RunError(f"{path.parent}, the list of images, cannot be read ({first_line(error)})", "Start again with another --out-dir") from None
    rows = table.slice(start, stop - start).to_pydict()
    yield from (Input(os.fsdecode(path), *numbers) for path, *numbers in zip(*(rows[name] for name in Input._fields), strict=True))
