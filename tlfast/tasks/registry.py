"""The registered tasks: those of this package, of entry points and of loaded files; and tasks for any path of labelled images."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from ..core import UsageError
from ..core.errors import suggest_name
from ..core.presets import DEPTH_SETTINGS
from ..core.setting_checks import check_run_name
from ..core.settings import flag_name
from ..data import Task
from ..data.hub import is_hub_dataset
from .folder import folder_task

DEPTH_FLAGS: dict[str, list[str]] = {"": [], "0": [], "all": ["--full"]}  # values of `depth` with a shorter form than --depth


ENTRY_POINTS = "tlfast.tasks"  # group; an entry point refers to a Task, such as "mypackage.birds:TASK"

_loaded: dict[str, Task] = {}  # tasks of files that were loaded in this process


def registered_tasks() -> dict[str, Task]:
    """Return all tasks by name."""
    return {**_installed_tasks(), **_loaded}


@lru_cache(maxsize=1)
def _installed_tasks() -> dict[str, Task]:
    """Return the `TASK` of each module of this package that defines it, and the tasks of entry points.

    A warning names an entry point that is broken, or whose task has the name of another one.
    """
    package = __package__ or ""
    modules = [import_module(f"{package}.{info.name}") for info in iter_modules(import_module(package).__path__)]
    tasks = {module.TASK.name: module.TASK for module in modules if hasattr(module, "TASK")}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            task = _check_task(entry.load(), entry.value)
        except Exception as error:  # of any package
            warnings.warn(f"the entry point {entry.name} of {ENTRY_POINTS} cannot be loaded: {error}", stacklevel=2)
            continue
        if tasks.setdefault(task.name, task) is not task:
            warnings.warn(f"the entry point {entry.name} of {ENTRY_POINTS} is not used: a task named '{task.name}' exists already", stacklevel=2)
    return dict(sorted(tasks.items()))


def load_task_file(path: Path) -> Task:
    """Execute a .py file and register the `TASK` that it defines. Raises UsageError."""
    spec = importlib.util.spec_from_file_location(f"tlfast_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of the user's code
        del sys.modules[spec.name]
        raise UsageError(f"{path} cannot be executed: {type(error).__name__}: {error}", "Correct the file; python FILE shows the traceback") from error
    return register_task(replace(_check_task(getattr(module, "TASK", None), str(path)), file=str(path.resolve())))


def register_task(task: Task) -> Task:
    """Register a task for this process, and return it. Raises UsageError if an installed task has its name, or its settings choose layers."""
    if problem := check_run_name(task.name):
        raise UsageError(f"the name of the task '{task.name}' {problem}", "Give the task another name")
    if isinstance(task.classes, str):
        raise UsageError(f"the classes of the task '{task.name}' are one string, {task.classes!r}", 'Give a tuple, such as classes=("cat", "dog")')
    for values in (task.defaults, task.partial, task.depth, task.full):
        if wrong := [name for name in (*DEPTH_SETTINGS, "preset") if name in values]:
            problem = f"the settings of the task '{task.name}' include {wrong[0]}, which chooses the layers of one training"
            raise UsageError(problem, f"Remove it, and give {flag_name(wrong[0])} to tlfast train, or {wrong[0]} in a config file")
    if _installed_tasks().get(task.name, task) is not task:
        raise UsageError(f"a task named '{task.name}' exists already", "Give the new task another name")
    if task.name not in _installed_tasks():
        _loaded[task.name] = task
    return task


def _check_task(task: Any, source: str) -> Task:
    if not isinstance(task, Task):
        raise UsageError(f"{source} defines no task", 'Define one: TASK = tlfast.Task(name="birds", title="birds in gardens")')
    return task


def find_run_task(manifest: Mapping[str, Any], source: str = "") -> Task:
    """Return the task of a finished run: registered, from its file, or that of the path of its images, which is `source` if they have moved."""
    name, file = manifest["settings"]["task"], manifest.get("task_file")
    if name not in registered_tasks() and file and Path(file).is_file():
        load_task_file(Path(file))
    return find_named_task(name, source or manifest["data"]["source"])


def find_named_task(name: str, source: str) -> Task:
    """Return a registered task, or a task of this name for the path of images `source`."""
    return registered_tasks().get(name) or replace(folder_task(Path(source)), name=name)


def train_command(task: str, source: str, options: Mapping[str, Any], file: str = "") -> str:
    """Return the command that trains a task with the given options. Options that are None are left out.

    `source` is the path of the images, "" for the default source of the task. A `depth` of "all" becomes `--full`. `file` is printed in place of the path of
    the file that defines the task.

    >>> train_command("fer", "", {"depth": "all", "lr": None, "epochs": 3})
    'tlfast train fer --full --epochs 3'
    """
    registered = registered_tasks().get(task)
    subject = source
    if registered:
        subject = (file or registered.file) if registered.file else task
    words = ["tlfast", "train", subject]
    words += ["--data", source] if registered and source else []
    for name, value in options.items():
        if name == "depth" and value in DEPTH_FLAGS:
            words += DEPTH_FLAGS[value]
        elif isinstance(value, bool):
            words.append(flag_name(name) if value else f"--no-{flag_name(name)[2:]}")
        elif value is not None:
            words += [flag_name(name), str(value)]
    return shlex.join(words)


def get_task(name: str) -> Task:
    """Return a task by name, or that of a .py file. Raises UsageError with the closest name as hint."""
    if name not in registered_tasks() and name.endswith(".py") and Path(name).is_file():
        return load_task_file(Path(name))
    if name not in registered_tasks():
        raise UsageError(f"unknown task '{name}'", suggest_name(name, list(registered_tasks())) or "Tasks: " + ", ".join(registered_tasks()))
    return registered_tasks()[name]


def find_task_name(name: str) -> str:
    """Return the name of the folder of the runs of a task, given by its name, its file, a path of images, or the address of a data set of the hub."""
    is_path = bool(name) and name not in registered_tasks() and os.path.exists(os.path.expanduser(name))
    return find_task(name)[0].name if is_path or is_hub_dataset(name) else name


def _own_task(path: Path) -> Task:
    """Return a task for a path of images. It has another name than an installed task, because later commands find the task of a run by its name."""
    task = folder_task(path)
    return replace(task, name=f"{task.name}-images") if task.name in _installed_tasks() else task


def find_task(name: str) -> tuple[Task, str]:
    """Return (task, "") for the name of a task or a .py file that defines one, or (task, absolute path) for a path of images, or its address on the hub.

    Raises UsageError for anything else.
    """
    if name in registered_tasks():
        return registered_tasks()[name], ""
    if name.endswith(".py") and Path(name).is_file():
        return load_task_file(Path(name)), ""
    if is_hub_dataset(name):
        return replace(_own_task(Path(name.partition("@")[0])), title=f"images of {name}"), name
    if os.path.exists(os.path.expanduser(name)):  # false for names that are too long
        path = Path(os.path.expanduser(name)).resolve()
        return _own_task(path), str(path)
    hint = (
        suggest_name(name, list(registered_tasks()))
        or "Tasks: " + ", ".join(registered_tasks()) + "; or the path of images: a folder, or a zip, CSV, parquet, COCO or tar file"
    )
    looks_like_path = bool(re.search(r"[/\\]|\.(zip|tar|csv|tsv|json|parquet|py)$", name))
    raise UsageError(f"{name}: no such folder or file" if looks_like_path else f"unknown task '{name}'", hint)
