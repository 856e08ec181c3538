"""Class folders: the labels and splits of images by the folders they are in."""

from __future__ import annotations

import os
from pathlib import Path

from ..core import DataError
from .discovery import inner_path
from .left_out import LeftOut
from .split import SPLIT_NAMES
from .types import Row


def read_members(prefix: str, names: list[str], source: str) -> tuple[list[Row], list[str]]:
    """Return the rows of image names such as `train/cat/1.jpg` or `cat/1.jpg`, and notes on skipped images.

    Outer folders that contain all images, or all but a few, are ignored. `prefix` is prepended to each name, `source` is for error messages. Raises
    DataError if no image is in a class folder.
    """
    paths = [inner_path(name).parts for name in names]
    if not paths:
        raise DataError(f"no images in {source}", "All formats of Pillow can be read, such as .jpg, .png, .webp and .tif")
    depth = _count_wrapping_folders(paths)
    has_splits = _has_split_folders(paths, depth)
    if not has_splits:
        _refuse_folders_beside_splits(paths, depth, source)
    rows, skipped = [], 0
    for name, path in zip(names, paths, strict=True):
        inner = path[depth + has_splits :]
        if len(inner) < 2:
            skipped += 1
            continue
        rows.append(Row(prefix + name, inner[0], SPLIT_NAMES[path[depth].lower()] if has_splits else ""))
    if not rows:
        raise DataError(f"the {skipped} images of {source} are in no class folder", "Make one sub-folder per class, named like the class")
    return rows, [f"{skipped} images outside the class folders are skipped"] if skipped else []


def find_empty_folders(root: Path, rows: list[Row], left_out: LeftOut) -> list[str]:
    """Return a note on folders next to the class folders that contain no image, and are not in `left_out`: perhaps classes without images yet."""
    parents: set[Path] = set()
    for row in rows:
        parts = Path(row.path).relative_to(root).parts
        parents.add(root.joinpath(*parts[: parts.index(row.label)]))
    labels = {row.label for row in rows} | {os.path.basename(path) for paths in left_out.folders.values() for path in paths}
    empty = sorted({path.name for parent in parents for path in parent.iterdir() if path.is_dir() and path.name not in labels and path.name[0] != "."})
    return [f"folders without images are not classes: {', '.join(empty)}"] if empty else []


def _count_wrapping_folders(paths: list[tuple[str, ...]]) -> int:
    """Return the number of outer folders that contain all images and are neither a split nor a class.

    Images outside of the inner folders, such as a title picture, are not counted if there are fewer of them than of these folders.
    """
    depth = 0
    while not _has_split_folders(paths, depth):
        outer, inner = ({path[: depth + below] for path in paths if len(path) > depth + below} for below in (1, 2))
        stray = sum(len(path) <= depth + 2 for path in paths)
        if len(outer) != 1 or not inner or (stray and stray >= len(inner)):
            break
        depth += 1
    return depth


def _has_split_folders(paths: list[tuple[str, ...]], depth: int) -> bool:
    """Return whether the folders at `depth` are splits: all have names of splits, and one is the train split."""
    tops = {path[depth].lower() for path in paths if len(path) > depth + 1}
    return bool(tops) and tops <= SPLIT_NAMES.keys() and any(SPLIT_NAMES[top] == "train" for top in tops)


def _refuse_folders_beside_splits(paths: list[tuple[str, ...]], depth: int, source: str) -> None:
    """Raise DataError if two of the folders at `depth`, but not all, are splits with the same class folders. They would be taken for classes."""
    labels: dict[str, set[str]] = {}  # folder -> its sub-folders with images
    for path in paths:
        if len(path) > depth + 1:
            labels.setdefault(path[depth], set()).update(path[depth + 1 : -1][:1])
    splits = {top: SPLIT_NAMES[top.lower()] for top in labels if top.lower() in SPLIT_NAMES}
    trained = set[str]().union(*(labels[top] for top, split in splits.items() if split == "train"))
    if any(split != "train" and labels[top] & trained for top, split in splits.items()):
        others = ", ".join(sorted(set(labels).difference(splits)))
        hint = "Move the other folders out of it; or give a table with the columns path, label and split"
        raise DataError(f"{source} has {others} beside the splits {', '.join(sorted(splits))}", hint)
