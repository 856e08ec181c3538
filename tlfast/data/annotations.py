"""Labels as annotation tools write them: COCO JSON, and the CSV export of Label Studio."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..core import DataError, DataSettings
from ..core.errors import first_line
from .discovery import DOWNLOAD_FIRST, is_url
from .records import resolve_beside
from .types import Row

JSON = ".json"
IMAGE_FOLDERS = (".", "images", "..", "../images")  # where the images of a COCO file are looked for, relative to its folder
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # name that Label Studio gives to an uploaded file
LABEL_STUDIO = ("image", "choice")  # its columns of images and labels


def read_coco(path: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of a COCO file whose images have annotations of one category each, and notes on images without annotations.

    An image may be listed several times, as in files that were merged. Raises DataError for another kind of JSON, for an image with several categories,
    and if nothing is annotated.
    """
    images, names, labels = _parse_coco(path)
    if address := next(filter(is_url, images.values()), ""):
        raise DataError(f"{path.name}: {address} is a URL", DOWNLOAD_FIRST)
    if any(not names[number].strip() for numbers in labels.values() for number in numbers):
        raise DataError(f"{path.name} has annotations of a category without a name", "Name the category in the file")
    beside = _find_folder(path, list(images.values())) / path.name
    found: dict[str, set[str]] = {}  # path of an image -> names of its categories
    for key, name in images.items():
        found.setdefault(os.path.normpath(resolve_beside(beside, name)), set()).update(names[number] for number in labels.get(key, ()))
    several = [image for image, categories in found.items() if len(categories) > 1]
    if several:
        hint = "tlfast classifies whole images: keep the annotations of one category for each"
        raise DataError(f"{path.name}: {len(several):,} images have several categories, the first: {os.path.relpath(several[0], path.parent)}", hint)
    rows = [Row(image, *categories) for image, categories in found.items() if categories]
    if not rows:
        raise DataError(f"{path.name} has no annotated image", "Give a file with images, categories and annotations")
    without = len(found) - len(rows)
    return rows, [f"{without:,} images without an annotation are skipped"] if without else []


def _parse_coco(path: Path) -> tuple[dict[Any, str], dict[Any, str], dict[Any, set[Any]]]:
    """Return file names by image, category names by category, and the categories of each annotated image. Raises DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        images = {image["id"]: str(image["file_name"]) for image in content["images"]}
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        labels = defaultdict(set)
        for annotation in content["annotations"]:
            labels[annotation["image_id"]].add(annotation["category_id"])
        unknown = [key for key in labels if key not in images] + [key for found in labels.values() for key in found if key not in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        hint = "It needs the lists images, categories and annotations; other labels can be given as a CSV file with the columns path and label"
        raise DataError(f"{path.name} is not a COCO file ({reason})", hint) from None
    if unknown:
        raise DataError(f"{path.name}: an annotation names the image or category {unknown[0]}, which is not listed", "Export the file again")
    return images, names, labels


def _find_folder(path: Path, names: Sequence[str]) -> Path:
    """Return the folder that the names of images are relative to: the first of IMAGE_FOLDERS with one of the first of them."""
    folders = [path.parent / folder for folder in IMAGE_FOLDERS]
    return next((folder for folder in folders if any(os.path.exists(resolve_beside(folder / path.name, name)) for name in names[:10])), path.parent)


def use_label_studio_columns(settings: DataSettings, columns: Sequence[str]) -> DataSettings:
    """Return the settings with the columns of Label Studio if a table has these, and not those of the settings."""
    image, choice = LABEL_STUDIO
    if image in columns and choice in columns and not {settings.path_col, settings.label_col} & set(columns):
        return replace(settings, path_col=image, label_col=choice)
    return settings


def resolve_image(table: Path, name: str) -> str:
    """Return the path of an image in a table, relative to its file.

    The address of an image in Label Studio, such as `/data/upload/1/0a1b2c3d-x.jpg`, becomes that of a file beside the table, if there is one.
    """
    path = resolve_beside(table, name)
    if not name.startswith("/data/") or os.path.exists(path):
        return path
    local = parse_qs(urlsplit(name).query).get("d", [""])[0]  # /data/local-files/?d=photos/x.jpg
    base = PurePosixPath(local or name).name
    uploaded = UPLOADED.fullmatch(base)
    candidates = [table.parent / each for each in (local, base, uploaded[1] if uploaded else "") if each]
    return next((str(each) for each in candidates if each.exists()), path)
