"""Class folders: the labels and splits of images by the folders they are in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..core import DataError
from ..core.errors import list_some
from .left_out import LeftOut
from .members import inner_path
from .split import SPLIT_NAMES
from .types import Row

AFFIX = re.compile(r"^(seg|images?|img)[_ -]|[_ -](set|data|images?|img|split)$")  # beside the name of a split, as in training_set, seg_train or test-images


def read_members(prefix: str, names: list[str], source: str, left_out: LeftOut) -> tuple[list[Row], list[str]]:
    """Return the rows of image names such as `train/cat/1.jpg` or `cat/1.jpg`, and notes on skipped images and on what is `left_out`.

    Outer folders that contain all images, or all but a few, are ignored. `prefix` is prepended to each name, `source` is for error messages. Raises
    DataError if no image is in a class folder.
    """
    paths, notes = [inner_path(name).parts for name in names], left_out.describe(prefix)
    if not paths:
        hint = "All formats of Pillow can be read, such as .jpg, .png, .webp and .tif"
        raise DataError(f"no images in {source}{''.join(f'; {note}' for note in notes)}", hint)
    depth = _count_wrapping_folders(paths)
    splits = _find_splits(paths, depth)
    if not splits:
        _refuse_folders_beside_splits(paths, depth, source)
    repeated = _find_repeated(paths, depth, splits)
    starts = {folder: depth + (2 if folder in repeated else 1) for folder in splits}  # depth of the class folders
    rows, skipped = [], 0
    for name, path in zip(names, paths, strict=True):
        inner = path[starts.get(path[depth], depth) :] if len(path) > depth else ()
        if len(inner) < 2:
            skipped += 1
            continue
        rows.append(Row(prefix + name, inner[0], splits.get(path[depth], "")))
    if not rows:
        raise DataError(f"the {skipped} images of {source} are in no class folder", "Make one sub-folder per class, named like the class")
    if unusual := sorted(folder for folder in splits if folder.lower() not in SPLIT_NAMES):
        notes.append(f"folders that are taken for splits: {', '.join(f'{folder} ({splits[folder]})' for folder in unusual)}")
    return rows, ([f"{skipped} images outside the class folders are skipped"] if skipped else []) + notes


def find_empty_folders(root: Path, rows: list[Row], left_out: LeftOut) -> list[str]:
    """Return a note on folders next to the class folders that contain no image, and are not in `left_out`: perhaps classes without images yet."""
    parents: set[Path] = set()
    for row in rows:
        parts = Path(row.path).relative_to(root).parts
        parents.add(root.joinpath(*parts[: parts.index(row.label)]))
    labels = {row.label for row in rows} | {os.path.basename(path) for paths in left_out.folders.values() for path in paths}
    empty = sorted({path.name for parent in parents for path in parent.iterdir() if path.is_dir() and path.name not in labels and path.name[0] != "."})
    return [f"folders without images are not classes: {list_some(empty)}"] if empty else []


def _count_wrapping_folders(paths: list[tuple[str, ...]]) -> int:
    """Return the number of outer folders that contain all images and are neither a split nor a class.

    Images outside of the inner folders, such as a title picture, are not counted if there are fewer of them than of these folders.
    """
    depth = 0
    while not _find_splits(paths, depth) or _wraps_splits(paths, depth):
        outer, inner = ({path[: depth + below] for path in paths if len(path) > depth + below} for below in (1, 2))
        stray = sum(len(path) <= depth + 2 for path in paths)
        if len(outer) != 1 or not inner or (stray and stray >= len(inner)):
            break
        depth += 1
    return depth


def name_split(folder: str) -> str:
    """Return the split that a folder is named after, "" for none.

    >>> name_split("Training_Set"), name_split("seg_test"), name_split("trains")
    ('train', 'test', '')
    """
    return SPLIT_NAMES.get(folder.lower()) or SPLIT_NAMES.get(AFFIX.sub("", folder.lower()), "")


def _find_splits(paths: list[tuple[str, ...]], depth: int) -> dict[str, str]:
    """Return the split of each folder at `depth`, if all are named after splits, and one after the train split; else an empty dictionary."""
    splits = {folder: name_split(folder) for folder in {path[depth] for path in paths if len(path) > depth + 1}}
    return splits if "train" in splits.values() and all(splits.values()) else {}


def _wraps_splits(paths: list[tuple[str, ...]], depth: int) -> bool:
    """Return whether the only folder at `depth` holds folders of splits with class folders, as `training_data/train/` and `training_data/valid/`."""
    inner = [path for path in paths if len(path) > depth + 3]
    return len({path[depth] for path in paths if len(path) > depth + 1}) == 1 and bool(_find_splits(inner, depth + 1))


def _find_repeated(paths: list[tuple[str, ...]], depth: int, splits: dict[str, str]) -> set[str]:
    """Return the folders of splits that hold nothing but a folder of the same name, as `seg_train/seg_train/`."""
    inner: dict[str, set[str]] = {folder: set() for folder in splits}
    for path in paths:
        if len(path) > depth + 1 and path[depth] in inner:
            inner[path[depth]].add(path[depth + 1] if len(path) > depth + 3 else "")  # with class folders
    return {folder for folder, names in inner.items() if names == {folder}}


def _refuse_folders_beside_splits(paths: list[tuple[str, ...]], depth: int, source: str) -> None:
    """Raise DataError if folders at `depth` are splits but would be taken for classes.

    That is the case if all are splits other than the train split, or if two, but not all, are splits with the same class folders.
    """
    labels: dict[str, set[str]] = {}  # folder -> its sub-folders with images, or those of its only sub-folder if that has the same name
    for path in paths:
        if len(path) > depth + 1:
            inner = path[depth + 1 : -1]
            labels.setdefault(path[depth], set()).update(inner[1:2] if inner[:1] == path[depth : depth + 1] else inner[:1])
    splits = {top: split for top in labels if (split := name_split(top))}
    if len(splits) > 1 and len(splits) == len(labels) and all(labels.values()):
        raise DataError(f"{source} has the splits {', '.join(sorted(splits))}, and no folder train", "Name the folder of the training images train")
    trained = set[str]().union(*(labels[top] for top, split in splits.items() if split == "train"))
    if any(split != "train" and labels[top] & trained for top, split in splits.items()):
        others = list_some(sorted(set(labels).difference(splits)))
        hint = "Move the other folders out of it; or give a table with the columns path, label and split"
        raise DataError(f"{source} has {others} beside the splits {', '.join(sorted(splits))}", hint)
