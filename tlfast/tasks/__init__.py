"""The known data sets, one file each, and any folder, CSV or zip of labelled images.

May import `data` and `core`; no torch. Read `weeds` for a task with splits of its own, then `registry` and `resolve`.
"""

from .folder import folder_task
from .registry import find_task, get_task, registered_tasks, train_command

__all__ = ["find_task", "folder_task", "get_task", "registered_tasks", "train_command"]
