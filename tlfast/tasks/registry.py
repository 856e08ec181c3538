"""The registered tasks, which are discovered in this package, and tasks for any path of labelled images."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ..core import UsageError
from ..core.errors import suggest_name
from ..core.settings import flag_name
from ..data import Task
from .folder import folder_task

DEPTH_FLAGS: dict[str, list[str]] = {"": [], "0": [], "all": ["--full"]}  # values of `depth` with a shorter form than --depth


@lru_cache(maxsize=1)
def registered_tasks() -> dict[str, Task]:
    """Return all tasks by name. A task is a module of this package that defines `TASK`."""
    package = __package__ or ""
    modules = [import_module(f"{package}.{info.name}") for info in iter_modules(import_module(package).__path__)]
    tasks = [module.TASK for module in modules if hasattr(module, "TASK")]
    return {task.name: task for task in sorted(tasks, key=lambda task: task.name)}


def train_command(task: str, source: str, options: Mapping[str, Any]) -> str:
    """Return the command that trains a task with the given options. Options that are None are left out.

    `source` is the path of the images, "" for the default source of the task. A `depth` of "all" becomes `--full`.

    >>> train_command("fer", "", {"depth": "all", "lr": None, "epochs": 3})
    'tlfast train fer --full --epochs 3'
    """
    words = ["tlfast", "train", *([task] if task in registered_tasks() else [source])]
    words += ["--data", source] if task in registered_tasks() and source else []
    for name, value in options.items():
        if name == "depth" and value in DEPTH_FLAGS:
            words += DEPTH_FLAGS[value]
        elif isinstance(value, bool):
            words.append(flag_name(name) if value else f"--no-{flag_name(name)[2:]}")
        elif value is not None:
            words += [flag_name(name), str(value)]
    return shlex.join(words)


def get_task(name: str) -> Task:
    """Return a task by name. Raises UsageError with the closest name as hint."""
    if name not in registered_tasks():
        raise UsageError(f"unknown task '{name}'", suggest_name(name, list(registered_tasks())) or "Tasks: " + ", ".join(registered_tasks()))
    return registered_tasks()[name]


def find_task(name: str) -> tuple[Task, str]:
    """Return (task, "") for the name of a task, or (task, absolute path) for a path of images. Raises UsageError for anything else."""
    if name in registered_tasks():
        return registered_tasks()[name], ""
    if Path(name).expanduser().exists():
        path = Path(name).expanduser().resolve()
        return folder_task(path), str(path)
    hint = suggest_name(name, list(registered_tasks())) or "Tasks: " + ", ".join(registered_tasks()) + "; or the path of a folder, zip or CSV of images"
    looks_like_path = bool(re.search(r"[/\\]|\.(zip|csv)$", name))
    raise UsageError(f"{name}: no such folder or file" if looks_like_path else f"unknown task '{name}'", hint)
