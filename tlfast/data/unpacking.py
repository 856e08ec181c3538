"""Files that hold many images with their labels, Parquet files and WebDataset tars: unpacked into the cache once."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, DataSettings, OnEvent, Progress, cache
from .file_hashes import hash_files
from .records import read_records
from .split import SPLIT_NAMES
from .types import Row

KIND, INDEX, LAYOUT = "unpacked", "index.csv", 2
REPORTED = 256  # images between two events of progress
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}


@dataclass(frozen=True)
class Record:
    """An image of a file: its bytes, its label ("" for none), its split as the file names it, and its group."""

    image: bytes
    label: str
    split: str = ""
    group: str = ""


Reader = Callable[[Path, DataSettings], Iterator[Record]]


def unpack(paths: Sequence[Path], root: Path, read: Reader, settings: DataSettings, on_event: OnEvent) -> tuple[list[Row], Path, list[str]]:
    """Unpack the images of files into the cache, unless they are there. Returns their rows, the folder, and notes.

    `root` is the folder with the files, or the only file. `read` yields the images of a file. The split of an image is that of its record, or of the name of
    its file in the folder, such as `train-00000-of-00002.parquet` or `train/0000.parquet`. Raises DataError for a damaged file, an unknown split and a
    full disk, and what `read` raises.
    """

    def fill(folder: Path) -> dict[str, Any]:
        return _write_images(paths, root, read, settings, folder, on_event)

    columns: tuple[str, ...] = (settings.label_col, settings.split_col, settings.group_col)
    columns += () if settings.path_col == DataSettings.path_col else (settings.path_col,)  # it can name a column of images
    places = [path.relative_to(root).as_posix() for path in paths]  # name the splits
    key = cache.make_key(layout=LAYOUT, kind=read.__name__, files=hash_files(list(map(str, paths))), places=places, columns=columns)
    folder, about = cache.get_or_create(KIND, key, fill)
    _, records = read_records(folder / INDEX)
    rows = [Row(str(folder / record["path"]), record["label"], record["split"], record["group"]) for record in records]
    without = int(about["without_label"])
    return rows, folder, [f"{without:,} images without a label are skipped"] if without else []


def explain_missing(path: str) -> str:
    """Return a hint for an image that was unpacked into the cache and is no longer there; "" for other images."""
    if os.path.exists(path) or not Path(path).is_relative_to(cache.find_root() / KIND):
        return ""
    remedy = "Unpack the images again: tlfast data check, with the path and the column options of the training"
    return f"It was unpacked into the cache, and was removed there. {remedy}"


def _write_images(paths: Sequence[Path], root: Path, read: Reader, settings: DataSettings, folder: Path, on_event: OnEvent) -> dict[str, Any]:
    """Write the images and their index. Returns the number of images without a label."""
    number = without = 0
    with (folder / INDEX).open("w", newline="", encoding="utf-8") as file:
        index = csv.writer(file)
        index.writerow(("path", "label", "split", "group"))
        for done, path in enumerate(paths):
            place = PurePosixPath(path.relative_to(root).as_posix())
            for record in read(path, settings):
                number += 1
                if number % REPORTED == 0:
                    on_event(Progress(f"unpacking {path.name}", done, len(paths)))
                if not record.label:
                    without += 1
                    continue
                name = name_file(record.image, number)
                (folder / name).write_bytes(record.image)
                index.writerow((name, record.label, find_split(record.split, place), record.group))
    on_event(Progress("unpacking", len(paths), len(paths)))
    return {"without_label": without}


def name_file(data: bytes, number: int) -> str:
    """Return a file name for the bytes of an image. Data of unknown types are kept too: they are reported with the other unreadable images.

    >>> name_file(b"GIF89a", 7)
    '00007.gif'
    """
    suffix = next((suffix for signature, suffix in SIGNATURES.items() if data.startswith(signature)), ".jpg")
    return f"{number:05d}{suffix}"


def find_split(value: str, place: PurePosixPath) -> str:
    """Return the split of an image: that of its record, else of the first word in the name of its file, else of the file's folder; "" for none.

    `place` is the path of the file in the folder of the data, empty for a single file. Raises DataError for a value that is no split.

    >>> find_split("", PurePosixPath("data/validation-00000-of-00001.parquet")), find_split("", PurePosixPath("train/0000.parquet"))
    ('valid', 'train')
    """
    if value:
        if value.lower() not in SPLIT_NAMES:
            raise DataError(f"'{value}' in the split column is not a split", "Use train, valid or test")
        return SPLIT_NAMES[value.lower()]
    words = (re.split(r"[^A-Za-z]", place.stem, maxsplit=1)[0].lower(), place.parent.name.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
