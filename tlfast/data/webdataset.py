"""WebDataset tars: the files of a sample have one name with different suffixes, such as `0001.jpg` and `0001.cls`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..core import DataError, DataSettings
from ..core.errors import first_line
from .archives import DAMAGED_TARBALL
from .images import SUFFIXES
from .records import check_optional
from .types import write_value
from .unpacking import Record

LABELS, TEXTS = ("cls", "label", "class"), ("txt", "text")  # suffixes of files with a label; texts may be captions, and are used where nothing else is
KEYS = ("label", "class", "cls", "category")  # of a label in a .json file, after the name of the label column


def read_webdataset(path: Path, settings: DataSettings) -> Iterator[Record]:
    """Yield the images of a tar. Labels are those of a file `.cls`, `.txt` or `.json` with the same name.

    The columns of splits and groups are entries of the JSON files. Raises UsageError if one was named that no image has, DataError for a damaged file.
    """
    found: set[str] = set()  # entries of all JSON files
    try:
        with tarfile.open(path) as file:
            key, sample = "", dict[str, bytes]()
            for member in file:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                if (current := f"{folder}/{stem}") != key:
                    yield from _build_record(sample, settings, found)
                    key, sample = current, {}
                content = file.extractfile(member)
                assert content  # a regular file
                sample[suffix.lower()] = content.read()
            yield from _build_record(sample, settings, found)
    except (OSError, *DAMAGED_TARBALL) as error:
        raise DataError(f"{path} is not a tar that can be read ({first_line(error)})", "Check it with: python -m tarfile -t FILE") from None
    check_optional(path, sorted(found), settings)


def _build_record(sample: dict[str, bytes], settings: DataSettings, found: set[str]) -> Iterator[Record]:
    """Yield the image of a sample, if it has one; of several the one with the fewest dots in its suffix.

    The names of the entries of its JSON file are added to `found`.
    """
    images = [suffix for suffix in sample if PurePosixPath(f"x.{suffix}").suffix in SUFFIXES]
    if not images:
        return
    image = min(images, key=lambda suffix: suffix.count("."))  # of 1.mask.png and 1.png the second; of several the first in the tar
    facts = _parse_object(sample.get("json", b"{}"))
    found.update(facts)
    labels, texts = ([sample[name].decode(errors="replace").strip() for name in names if name in sample] for names in (LABELS, TEXTS))
    values = [str(facts[name]).strip() for name in (settings.label_col, *KEYS) if facts.get(name) is not None]
    split, group = (write_value(facts.get(name)) for name in (settings.split_col, settings.group_col))
    yield Record(sample[image], next((text for text in [*labels, *values, *texts] if text), ""), split, group)


def _parse_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
