"""Parquet files that hold images, as those of the Hugging Face hub. The images are unpacked into the cache once."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, DataSettings, OnEvent, Progress, UsageError, cache
from ..core.errors import first_line
from ..core.settings import flag_name
from .discovery import PARQUET, read_records
from .file_hashes import hash_files
from .split import SPLIT_NAMES
from .types import Row

KIND, INDEX, LAYOUT = "parquet", "index.csv", 1
LABEL_COLUMNS = ("label", "labels", "class", "emotion")  # names of label columns, for files that do not declare their classes
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}
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
        return "" if value is None else str(value).strip()


def holds_images(path: Path, path_column: str) -> bool:
    """Return whether a file is a parquet file with a column of images, and without the column of paths."""
    import pyarrow
    from pyarrow import parquet

    if path.suffix.lower() != PARQUET:
        return False
    try:
        schema = parquet.read_schema(path)
        return bool(_image_columns(schema)) and path_column not in schema.names
    except (OSError, pyarrow.ArrowException):
        return False


def find_columns(schema: Any, label: str = "") -> Columns | None:
    """Return the columns of images and labels of an Arrow schema, or None. `label` is the name of the label column, if it is known."""
    import pyarrow

    features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    numbered = [name for name in schema.names if "names" in features.get(name, {})]
    spelled = [name for name in LABEL_COLUMNS if name in schema.names and schema.field(name).type in (pyarrow.string(), pyarrow.large_string())]
    found = [label] if label in schema.names else numbered + spelled
    images = _image_columns(schema)
    return Columns(images[0], found[0], features.get(found[0], {}).get("names", [])) if images and found else None


def _image_columns(schema: Any) -> list[str]:
    import pyarrow

    structs = [field.name for field in schema if pyarrow.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    return structs + [field.name for field in schema if field.type in (pyarrow.binary(), pyarrow.large_binary())]


def read_records_with_images(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a parquet file, with the given columns, in constant memory. Raises DataError."""
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(BATCH, columns=list(columns)):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)})", "Download or write it again") from None


def name_file(value: bytes | dict[str, Any] | None, number: int) -> tuple[str, bytes]:
    """Return a file name and the bytes of an image. Data of unknown types are kept too: they are reported with the other unreadable images."""
    data = (value.get("bytes") if isinstance(value, dict) else value) or b""
    suffix = next((suffix for signature, suffix in SIGNATURES.items() if data.startswith(signature)), ".jpg")
    return f"{number:05d}{suffix}", data


def unpack(paths: Sequence[Path], root: Path, settings: DataSettings, on_event: OnEvent) -> tuple[list[Row], Path, list[str]]:
    """Unpack the images of parquet files into the cache, unless they are there. Returns their rows, the folder, and notes.

    `root` is the folder with the files, or the only file. The split of a row is that of the split column, or of the name of its file in the folder, such as
    `train-00000-of-00002.parquet` or `train/0000.parquet`. Raises UsageError for a missing label column, DataError for a damaged file or a full disk.
    """

    def fill(folder: Path) -> dict[str, Any]:
        return _write_images(paths, root, settings, folder, on_event)

    columns = (settings.label_col, settings.split_col, settings.group_col)
    folder, about = cache.get_or_create(KIND, cache.make_key(layout=LAYOUT, files=hash_files(list(map(str, paths))), columns=columns), fill)
    _, records = read_records(folder / INDEX)
    rows = [Row(str(folder / record["path"]), record["label"], record["split"], record["group"]) for record in records]
    without = int(about["without_label"])
    return rows, folder, [f"{without:,} rows without a label are skipped"] if without else []


def _write_images(paths: Sequence[Path], root: Path, settings: DataSettings, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Write the images and their index. Returns the number of rows without a label."""
    from pyarrow import parquet

    numbers, without, total = itertools.count(), 0, sum(parquet.ParquetFile(path).metadata.num_rows for path in paths)
    with (folder / INDEX).open("w", newline="", encoding="utf-8") as file:
        index = csv.writer(file)
        index.writerow(("path", "label", "split", "group"))
        done = 0
        for path in paths:
            place = PurePosixPath(path.relative_to(root).as_posix())
            schema = parquet.read_schema(path)
            columns = find_columns(schema, settings.label_col)
            if columns is None:
                found = ", ".join(schema.names)
                raise UsageError(f"{path.name} has no column '{settings.label_col}'; it has: {found}", f"Name the column with {flag_name('label_col')}")
            extra = [name for name in (settings.split_col, settings.group_col) if name in schema.names]
            for record in read_records_with_images(path, [columns.image, columns.label, *extra]):
                done += 1
                if done % BATCH == 0 or done == total:
                    on_event(Progress("unpacking images", done, total))
                label = columns.name_class(record[columns.label])
                if not label:
                    without += 1
                    continue
                name, data = name_file(record[columns.image], next(numbers))
                (folder / name).write_bytes(data)
                index.writerow((name, label, _find_split(record.get(settings.split_col), place), record.get(settings.group_col) or ""))
    return {"without_label": without}


def _find_split(value: Any, place: PurePosixPath) -> str:
    """Return the split of a record: that of its split column, else of the file name's first word or of the file's folder; "" for none.

    `place` is the path of the file in the folder of the data, empty for a single file. Raises DataError for a value that is no split.

    >>> _find_split(None, PurePosixPath("data/validation-00000-of-00001.parquet")), _find_split(None, PurePosixPath("train/0000.parquet"))
    ('valid', 'train')
    """
    if value:
        if str(value).lower() not in SPLIT_NAMES:
            raise DataError(f"'{value}' in the split column is not a split", "Use train, valid or test")
        return SPLIT_NAMES[str(value).lower()]
    words = (re.split(r"[^A-Za-z]", place.stem, maxsplit=1)[0].lower(), place.parent.name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
