"""The images of a finished run, with the splits that they had in its training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..core import OnEvent, Run, Settings, ignore_event
from .discovery import read_records
from .hub import is_hub_dataset
from .sources import open_data
from .table import ImageTable
from .task import Task

LIST = "images.csv"  # in the folder of a run


def open_run_data(run: Run, task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> ImageTable:
    """Return the image table of a run's data, which may have changed or moved since. Raises UsageError or DataError.

    If the splits would be drawn otherwise than in the training, as after images were added, they are those of the training, and images that were not in it
    are training images.
    """
    table = open_data(task, settings, on_event)
    known = read_splits(run, table.source)
    changed = any(known.get(os.path.abspath(row.path), row.split) != row.split for row in table.rows)
    return open_data(task, settings, on_event, known) if changed else table


def read_splits(run: Run, source: str) -> Mapping[str, str]:
    """Return the split of each image of a run by absolute path, below `source` if the images have moved there; none for a run from the hub."""
    file, former = run.folder / LIST, run.manifest["data"].get("source", "")
    if not file.exists():
        return {}
    splits = {record["path"]: record["split"] for record in read_records(file)[1]}
    if os.path.exists(former) or is_hub_dataset(former):
        return splits
    old, new = (_find_folder(path, source) for path in (former, source))
    return {os.path.abspath(os.path.join(new, os.path.relpath(path, old))): split for path, split in splits.items()}


def _find_folder(path: str, source: str) -> str:
    """Return what the paths of images begin with: a folder, a zip, or the folder of another file. `source` is of the same kind and exists."""
    if os.path.isdir(source):
        return path
    return f"{path}!" if Path(path).suffix.lower() == ".zip" else os.path.dirname(path)
