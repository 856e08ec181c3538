"""Files written atomically, moved without overwriting, and tables as CSV and JSON."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def write_csv(path: Path, rows: Sequence[Any]) -> None:
    """Write dataclasses of one kind, at least one, under the names of their fields; an interval becomes two columns, a dict none."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(_csv_cells(rows[0])))
        writer.writeheader()
        writer.writerows(map(_csv_cells, rows))


def _csv_cells(row: Any) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, dict):
            continue  # it is no cell; the JSON beside has it
        cells |= {f"{name}_low": value[0], f"{name}_high": value[1]} if isinstance(value, tuple) else {name: value}
    return cells


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Turn what torch and safetensors say of a disk that takes no more into an OSError that names the file."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # a RuntimeError, or a SafetensorError, which is derived from nothing
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from error
        if any(words in str(error) for words in ("inline_container", "iostream error", "I/O error")):
            raise OSError(errno.EIO, "it could not be written whole; is the disk full?", str(path)) from error
        raise


def move_file(source: Path, target: Path) -> None:
    """Rename a file, but never onto another. Raises FileExistsError."""
    try:
        os.link(source, target)  # fails, as a rename does not, where there is something
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(f"{target} exists already") from None
        os.rename(source, target)
    else:
        source.unlink()


if os.name == "posix":
    pass


def write_atomic(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place, let the disk have it, and rename it: whatever happens meanwhile, what bears its name is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
