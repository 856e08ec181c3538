"""Records of CSV and parquet files, their columns, and the paths in them."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..core import DataError, DataSettings, UsageError
from ..core.errors import first_line
from ..core.settings import flag_name
from .types import PARQUET

PARQUET_BATCH = 10_000  # rows that are read at once
SEPARATOR = re.compile(r"sep=.", re.IGNORECASE)  # names the delimiter of a CSV file to Excel


def read_records(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns and records of a file of comma-, semicolon- or tab-separated values, or of a parquet file, in constant memory. Raises DataError."""
    columns, numbered = read_numbered_records(path)
    return columns, (record for _, record in numbered)


def read_numbered_records(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return the columns, and each record with the number of its line, as `read_records` does. A parquet file counts as one with a line of columns."""
    if path.suffix.lower() == PARQUET:
        columns, records = _read_parquet(path)
        return columns, enumerate(records, start=2)
    lines = _read_csv(path)
    return next(lines), lines


def _read_csv(path: Path) -> Iterator[Any]:
    """Yield the list of columns of a CSV file, then the number of the line and the record of each row.

    Empty lines, blanks around the names of columns, and the first line `sep=;` that some spreadsheets write are ignored. Raises DataError for a line that
    cannot be read, or with more cells than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # with its line ends, which may be part of a quoted name
            before, first = 0, file.readline()  # number of lines before that of the columns
            while first and (not first.strip() or (not before and SEPARATOR.fullmatch(first.strip()))):
                before, first = before + 1, file.readline()
            if not first:
                raise DataError(f"{path} is empty", "Add a line of column names and one line per image")
            try:
                delimiter = csv.Sniffer().sniff(first.rstrip("\r\n"), ",;\t").delimiter
            except csv.Error:  # a single column
                delimiter = ","
            yield from _parse_csv(csv.DictReader(chain([first], file), delimiter=delimiter, skipinitialspace=True), path, before)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason})", "Save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _parse_csv(reader: csv.DictReader[str], path: Path, before: int) -> Iterator[Any]:
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        yield list(reader.fieldnames)
        for record in reader:
            if any(record.pop(None, None) or ()):  # cells without a column; empty ones do no harm
                problem = f"{path.name} line {before + reader.line_num}: more cells than columns"
                raise DataError(problem, "Put cells that hold the delimiter in double quotes")
            yield before + reader.line_num, record
    except csv.Error as error:
        hint = "Correct the line; a quote that is not closed joins all lines after it"
        raise DataError(f"{path.name} line {before + reader.line_num}: {error}", hint) from None


def _read_parquet(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns of text and numbers of a parquet file, and its records as text; missing values are "". Raises DataError."""
    import pyarrow as pa  # imported here, because most commands read no parquet file
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _describe_bad_parquet(path, error) from None
    columns = [field.name for field in schema if not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))]

    def read() -> Iterator[dict[str, str]]:
        try:
            for batch in parquet.ParquetFile(path).iter_batches(PARQUET_BATCH, columns=columns):
                for record in batch.to_pylist():
                    yield {name: "" if value is None else str(value) for name, value in record.items()}
        except (OSError, pa.ArrowException) as error:
            raise _describe_bad_parquet(path, error) from None

    return columns, read()


def _describe_bad_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a parquet file that can be read ({first_line(error)})", "Write it again, or give a CSV file")


def check_unique(path: Path, columns: Sequence[str], used: Sequence[str]) -> None:
    """Raise DataError if a table has one of the used columns more than once."""
    for column in used:
        if columns.count(column) > 1:
            raise DataError(f"{path.name} has {columns.count(column)} columns '{column}'", "Rename or remove the others")


def check_optional(path: Path, columns: Iterable[str], settings: DataSettings) -> None:
    """Raise UsageError if a column of splits or groups was named that is not there."""
    found = list(columns)
    for name in ("split_col", "group_col"):
        column = getattr(settings, name)
        if column not in found and column != getattr(DataSettings, name):
            hint = f"Name the column with {flag_name(name)}, or remove the flag"
            raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(found) or 'none'}", hint)


def resolve_beside(table: Path, name: str) -> str:
    """Return the path of an image in a CSV file, relative to that file. Backslashes are separators unless a file has such a name.

    `a/../b.jpg` is `b.jpg`.
    """
    if "\\" in name and not (table.parent / name).exists():
        name = name.replace("\\", "/")
    return str(table.parent / (os.path.normpath(name) if ".." in name else name))
