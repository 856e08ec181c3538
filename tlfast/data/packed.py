"""Images in tars and parquet files.

Their paths are `shard.tar!/0001.jpg`, and `images.parquet#12` for the image of row 12, or `images.parquet#photo:12` for a column that is not the first.
"""

from __future__ import annotations

import os
import tarfile
import threading
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..core import DataError
from ..core.errors import first_line
from .archives import DAMAGED_TARBALL
from .images import is_image_name
from .left_out import LeftOut
from .members import leave_out_hidden
from .parquet_images import get_bytes, list_image_columns
from .types import PARQUET

KEPT_GROUPS, KEPT_TARS = 2, 8  # row groups and indices in memory
_lock = threading.Lock()  # the threads that decode images read a row group or an index once


def list_tar(path: Path, left_out: LeftOut | None = None) -> list[str]:
    """Return the paths of the images in an uncompressed tar, in order. Other files and hidden folders are added to `left_out`.

    Raises DataError for a damaged tar.
    """
    try:
        names = list(_index_tar(str(path), os.stat(path).st_mtime_ns))
    except DAMAGED_TARBALL as error:
        hint = "Check it with: python -m tarfile -t FILE; compressed tars must be unpacked"
        raise DataError(f"{path} is not a tar that can be read ({first_line(error)})", hint) from None
    names = leave_out_hidden(names, f"{path}!/", left_out)
    if left_out is not None:
        for name in names:
            if not is_image_name(name):
                left_out.add_file(name.rpartition("/")[2])
    return [f"{path}!/{name}" for name in names if is_image_name(name)]


def list_rows(path: Path, column: str = "") -> Iterator[str]:
    """Yield the paths of the images in a parquet file: of the column `column` if it holds images, else of the first column of images."""
    from pyarrow import parquet

    chosen = f"{column}:" if column in list_image_columns(parquet.read_schema(path))[1:] else ""
    return (f"{path}#{chosen}{row}" for row in range(parquet.read_metadata(path).num_rows))


def read_member(path: str, member: str) -> bytes:
    """Return the bytes of an image, for the two parts of a path that `images.split_packed` returns. Raises OSError, KeyError or ValueError."""
    modified = os.stat(path).st_mtime_ns
    if path.lower().endswith(PARQUET):
        column, _, row = member.rpartition(":")
        return _read_row(path, modified, int(row), column)
    try:
        with _lock:
            offset, size = _index_tar(path, modified)[member]
    except DAMAGED_TARBALL as error:
        raise ValueError(first_line(error)) from None
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


@lru_cache(maxsize=KEPT_TARS)
def _index_tar(path: str, modified: int) -> dict[str, tuple[int, int]]:
    """Return name -> offset and size of the files in an uncompressed tar; a hard link is the file that it names. Raises TarError if the tar is cut off."""
    index: dict[str, tuple[int, int]] = {}
    with tarfile.open(path, "r:") as file:
        for member in file:
            if member.isreg():
                index[member.name] = member.offset_data, member.size
            elif member.islnk() and member.linkname in index:
                index[member.name] = index[member.linkname]
        end = file.offset
    with open(path, "rb") as content:
        content.seek(end)  # of the last member; a block of zeros follows
        if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end: the file is cut off")
    return index


def _read_row(path: str, modified: int, row: int, column: str) -> bytes:
    with _lock:
        starts = _row_groups(path, modified)
        if row >= starts[-1]:
            raise ValueError(f"the file has {starts[-1]:,} rows")
        group = bisect_right(starts, row) - 1
        values = _read_group(path, modified, group, column)
    return get_bytes(values[row - starts[group]].as_py())


@lru_cache(maxsize=KEPT_TARS)
def _row_groups(path: str, modified: int) -> list[int]:
    """Return the first row of each row group, and the number of rows."""
    from pyarrow import parquet

    metadata, starts = parquet.read_metadata(path), [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return starts


@lru_cache(maxsize=KEPT_GROUPS)
def _read_group(path: str, modified: int, group: int, column: str) -> Any:
    """Return the images of a row group, as an Arrow array. `column` is "" for the first column of images. Raises ValueError if it is not there."""
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        columns = list_image_columns(file.schema_arrow)
        if not columns or (column and column not in columns):
            raise ValueError(f"there is no column of images named '{column}'" if column else "there is no column of images")
        return file.read_row_group(group, columns=[column or columns[0]]).column(0)
