"""The images of a finished run, with the splits that they had in its training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..core import DataSettings, OnEvent, RunRecord, Settings, ignore_event
from ..core.run_files import IMAGES_FILE
from ..core.setting_fields import Role
from ..core.settings import names_with
from .hub import is_hub_dataset
from .members import relative_path
from .records import read_records
from .sources import open_with_splits
from .table import ImageTable
from .task import Task

APPLIED = names_with(Role.RESULT, group=DataSettings)  # settings that were applied when the list was written


def open_run_data(run: RunRecord, task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> ImageTable:
    """Return the image table of a run's data, which may have changed or moved since. Raises UsageError or DataError.

    The splits are those of the training if drawing them again would give others, as after images were added. New images become training images. If the
    data is the list of the run itself, the settings that were applied when it was written are reset.
    """
    if _is_list(run, settings.data):
        settings = replace(settings, **{name: getattr(DataSettings, name) for name in APPLIED})
    return open_with_splits(task, settings, partial(read_splits, run), on_event)


def _is_list(run: RunRecord, data: str) -> bool:
    """Return whether the data is the list of images in the folder of a run."""
    return os.path.basename(data) == IMAGES_FILE and os.path.realpath(data) == os.path.realpath(run.folder / IMAGES_FILE)


def read_splits(run: RunRecord, source: str) -> Mapping[str, str]:
    """Return {absolute path: split} of the images of a run; empty for a run from the hub.

    Each image is listed under its path in the training and under the same path below `source`, because the images may have moved.
    """
    file, former = run.folder / IMAGES_FILE, run.manifest["data"].get("source", "")
    if not file.exists():
        return {}
    splits = {os.path.abspath(record["path"]): record["split"] for record in read_records(file)[1]}
    if former == source or is_hub_dataset(former):
        return splits
    old, new = (_find_folder(path, source) for path in (former, source))
    return {os.path.abspath(os.path.join(new, relative_path(path, old))): split for path, split in splits.items()} | splits


def _find_folder(path: str, source: str) -> str:
    """Return what the paths of images begin with: a folder, a zip, or the folder of another file. `source` is of the same kind and exists."""
    if os.path.isdir(source):
        return path
    return f"{path}!" if Path(path).suffix.lower() == ".zip" else os.path.dirname(path)
