"""The known data sets, one file each, and tasks for any folder, zip or table of labelled images.

May import `data` and `core`; no torch. Read `weeds`, a task with official splits, then `registry` and `resolve`.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .folder import folder_task
    from .registry import find_named_task, find_run_task, find_task, find_task_name, get_task, register_task, registered_tasks, train_command
    from .resolve import resolve_settings

__all__ = [
    "find_named_task",
    "find_run_task",
    "find_task",
    "find_task_name",
    "folder_task",
    "get_task",
    "register_task",
    "registered_tasks",
    "resolve_settings",
    "train_command",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "folder": ["folder_task"],
            "registry": ["find_named_task", "find_run_task", "find_task", "find_task_name", "get_task", "register_task", "registered_tasks", "train_command"],
            "resolve": ["resolve_settings"],
        },
    )
