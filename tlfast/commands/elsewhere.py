"""A task in other processes. The functions of a task file cannot be imported there by name, so the file is executed again."""

from __future__ import annotations

from ..data import Task
from ..tasks import find_task


def pack_task(task: Task) -> Task | str:
    """Return what is sent to other processes in place of a task: the path of the file that defines it, or the task itself if there is no file."""
    return task.file or task


def unpack_task(packed: Task | str) -> Task:
    """Return the task of `pack_task` in another process. Raises UsageError if its file is missing or cannot be executed."""
    return find_task(packed)[0] if isinstance(packed, str) else packed
