"""The images of a finished run, with the splits that they had in its training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..core import DataSettings, OnEvent, Run, Settings, ignore_event
from .discovery import read_records
from .hub import is_hub_dataset
from .sources import open_with_splits
from .table import ImageTable
from .task import Task

LIST = "images.csv"  # in the folder of a run
APPLIED = ("path_col", "label_col", "split_col", "group_col", "group_by", "fold", "limit", "train_pct")  # settings that the list is the result of


def open_run_data(run: Run, task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> ImageTable:
    """Return the image table of a run's data, which may have changed or moved since. Raises UsageError or DataError.

    If the splits would be drawn otherwise than in the training, as after images were added, they are those of the training, and images that were not in it
    are training images. The list of the run itself needs none of the settings that it was made with.
    """
    if _is_list(run, settings.data):
        settings = replace(settings, **{name: getattr(DataSettings, name) for name in APPLIED})
    return open_with_splits(task, settings, partial(read_splits, run), on_event)


def _is_list(run: Run, data: str) -> bool:
    """Return whether the data is the list of images in the folder of a run."""
    return os.path.basename(data) == LIST and os.path.realpath(data) == os.path.realpath(run.folder / LIST)


def read_splits(run: Run, source: str) -> Mapping[str, str]:
    """Return the split of each image of a run by absolute path, at its former place and below `source`, where the images may be now.

    There are none for a run from the hub.
    """
    file, former = run.folder / LIST, run.manifest["data"].get("source", "")
    if not file.exists():
        return {}
    splits = {os.path.abspath(record["path"]): record["split"] for record in read_records(file)[1]}
    if former == source or is_hub_dataset(former):
        return splits
    old, new = (_find_folder(path, source) for path in (former, source))
    return {os.path.abspath(os.path.join(new, os.path.relpath(path, old))): split for path, split in splits.items()} | splits


def _find_folder(path: str, source: str) -> str:
    """Return what the paths of images begin with: a folder, a zip, or the folder of another file. `source` is of the same kind and exists."""
    if os.path.isdir(source):
        return path
    return f"{path}!" if Path(path).suffix.lower() == ".zip" else os.path.dirname(path)
