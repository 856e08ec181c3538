"""Tables of images from text."""

from __future__ import annotations

import functools
from pathlib import Path

from tlfast import tasks
from tlfast.core.settings import Settings
from tlfast.data import ImageTable
from tlfast.data.table import load_table
from tlfast.data.task import Task
from tlfast.tasks.resolve import resolve_settings


def listed(folder: Path, text: str | bytes, name: str = "list.csv") -> ImageTable:
    """Write a table of images and load it."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    task, settings = _task_of(path)
    return load_table(task, settings, path)


@functools.cache  # resolving the settings takes longer than reading a table
def _task_of(path: Path) -> tuple[Task, Settings]:
    task = tasks.folder_task(path)
    return task, resolve_settings(task, None, {"data": str(path)})
