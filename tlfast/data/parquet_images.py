"""Parquet files that hold images, as those of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import DataError, DataSettings, UsageError
from ..core.errors import first_line
from ..core.settings import flag_name
from .records import check_optional
from .types import PARQUET, write_value
from .unpacking import Record

LABEL_COLUMNS = ("label", "labels", "class", "emotion")  # names of label columns, for files that do not declare their classes
BATCH = 256  # rows that are read at once


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a parquet file.

    Attributes:
        image: bytes of the images, or a struct with the field `bytes`.
        label: labels: text, or numbers.
        names: class names, if the labels are numbers and the file declares their names.
    """

    image: str
    label: str
    names: list[str]

    def name_class(self, value: Any) -> str:
        """Return the label for a value of the label column; "" for none, such as -1 in the test split of a public data set."""
        if self.names and isinstance(value, int):
            return self.names[value] if 0 <= value < len(self.names) else ""
        return write_value(value)


def holds_images(path: Path, path_column: str) -> bool:
    """Return whether a file is a parquet file with a column of images, and `path_column` is one or is not in the file.

    Raises UsageError if a column other than the default was named and is not in the file.
    """
    if path.suffix.lower() != PARQUET:
        return False
    import pyarrow  # takes a quarter of a second, and most data are no parquet files
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException):
        return False
    columns = list_image_columns(schema)
    if columns and path_column not in (*schema.names, DataSettings.path_col):
        raise UsageError(f"{path.name} has no column '{path_column}'; it has: {', '.join(schema.names)}", f"Columns of images: {', '.join(columns)}")
    return path_column in columns or (bool(columns) and path_column not in schema.names)


def find_columns(schema: Any, label: str = "", image: str = "") -> Columns | None:
    """Return the columns of images and labels of an Arrow schema, or None. `label` and `image` are their names, if they are known."""
    import pyarrow

    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    numbered = [name for name in schema.names if "names" in features.get(name, {})]
    spelled = [name for name in LABEL_COLUMNS if name in schema.names and schema.field(name).type in (pyarrow.string(), pyarrow.large_string())]
    found = [label] if label in schema.names else numbered + spelled
    images = list_image_columns(schema)
    return Columns(image if image in images else images[0], found[0], features.get(found[0], {}).get("names", [])) if images and found else None


def describe_other_columns(path: Path, column: str, option: str) -> list[str]:
    """Return a note on the columns of images of a parquet file that are not used, if `column` is none of them; no note for other files.

    `option` is the flag that chooses a column.
    """
    if not holds_images(path, column):
        return []
    from pyarrow import parquet

    columns = list_image_columns(parquet.read_schema(path))
    if len(columns) < 2 or column in columns:
        return []
    return [f"the images are those of column {columns[0]}; {option} chooses another one: {', '.join(columns[1:])}"]


def read_parquet_images(path: Path, settings: DataSettings) -> Iterator[Record]:
    """Yield the images of a parquet file. Raises UsageError for a missing column, DataError for a damaged file."""
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    columns = find_columns(schema, settings.label_col, settings.path_col)
    if columns is None or settings.label_col not in (*schema.names, DataSettings.label_col):
        found = ", ".join(schema.names)
        raise UsageError(f"{path.name} has no column '{settings.label_col}'; it has: {found}", f"Name the column with {flag_name('label_col')}")
    check_optional(path, schema.names, settings)
    extra = [name for name in (settings.split_col, settings.group_col) if name in schema.names]
    named, has_bytes = "", False
    for row in read_rows(path, [columns.image, columns.label, *extra]):
        split, group = (write_value(row.get(name)) for name in (settings.split_col, settings.group_col))
        value = row[columns.image]
        named = named or (value.get("path") or "" if isinstance(value, dict) else "")
        has_bytes = has_bytes or bool(get_bytes(value))
        yield Record(get_bytes(value), columns.name_class(row[columns.label]), split, group)
    if named and not has_bytes:
        hint = "Write it with the bytes, as datasets.Dataset.to_parquet of a current version does; or give a CSV file of paths and labels"
        raise DataError(f"{path.name} holds paths of images and not the images, the first: {named}", hint)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file, with the given columns, in constant memory. Raises DataError."""
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(BATCH, columns=list(columns)):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})", "Download or write it again") from None


def get_bytes(value: bytes | dict[str, Any] | None) -> bytes:
    """Return the bytes of an image in a value of an image column; b"" for none."""
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def list_image_columns(schema: Any) -> list[str]:
    """Return the columns of an Arrow schema that hold images: bytes, or structs with the field `bytes`."""
    import pyarrow

    structs = [field.name for field in schema if pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    return structs + [field.name for field in schema if field.type in (pyarrow.binary(), pyarrow.large_binary())]
