"""Arguments of commands: the task and its settings from flags, a config file, a run to repeat or a training to resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .. import tasks as registry
from ..core import RunError, Settings, UsageError, config_files, journal, torchrun
from ..core.setting_fields import Role
from ..core.setting_values import check_value
from ..core.settings import declared_settings, flag_name, names_with
from ..data import Task
from ..data.discovery import is_table
from ..data.hub import is_hub_dataset
from ..tasks import resolve

T = TypeVar("T")
RESUMED_WITH_OTHERS = ("log", "gpus", "device")  # settings that a resumed training may change


@dataclass(frozen=True)
class Arguments:
    """A task, with the given flags and the values of the config file. `like` is the manifest of a run to repeat, or empty."""

    task: Task
    flags: Mapping[str, Any]
    values: Mapping[str, Any]
    like: Mapping[str, Any]

    def with_flags(self, flags: Mapping[str, Any]) -> Arguments:
        """Return the arguments with further flags."""
        return replace(self, flags={**self.flags, **flags})

    def settings(self, full: bool | None) -> Settings:
        """Return the merged settings. `full` is None without `--full` or `--partial`. Raises UsageError."""
        return resolve.resolve_settings(self.task, _name_strategy(full), self.flags, self.values)

    def resumed(self, which: str, full: bool | None) -> tuple[Settings, str]:
        """Return the settings and the run id of the interrupted training `which`. Raises UsageError if a given setting differs from them.

        Of the processes of torchrun, the first finds it for all: the other machines may not have its folder.
        """
        return _ask_first(lambda: self._resumed(which, full))

    def _resumed(self, which: str, full: bool | None) -> tuple[Settings, str]:
        requested = resolve.list_given(_name_strategy(full), self.flags, self.values)
        folder = self._find_interrupted(os.path.expanduser(str(requested.get("out", Settings.out))), which)
        settings = Settings.from_dict(journal.read_facts(folder).settings)
        declared, places = declared_settings(), names_with(Role.PLACE)
        shown = {**settings.to_dict(), "depth": settings.depth}
        for name, given in requested.items():
            saved, value = getattr(settings, name, given), check_value(name, given, declared) if name in declared else given
            if name == "teacher" and value:
                value = _resolve_teachers(settings, value)
            if name in RESUMED_WITH_OTHERS:
                settings = replace(settings, **{name: value})
            elif saved != value and not (name in places and Path(saved).resolve() == Path(value).resolve()):
                typed = "the images" if name == "data" else flag_name(name)  # which may be a path without --data
                instead = "Give the former ones" if name == "data" else f"Leave out {typed}"
                found = f"{typed} {given}: the interrupted training began with {shown.get(name, saved)}"
                raise UsageError(found, f"{instead}, or leave out --resume to start a new training")
        return settings, journal.run_id_of(folder)

    def _find_interrupted(self, out: str, which: str) -> Path:
        """Return the folder of an interrupted training: of these images if there is one, else of the task. Raises UsageError.

        In Python, images can be given the name of another task; a run id finds their trainings too.
        """
        data, newest = self.flags.get("data") or self.values.get("data") or "", which == journal.NEWEST
        folders = journal.list_unfinished(out, self.task.name if newest else "") if data else []
        of_images = [folder for folder in folders if (newest or journal.run_id_of(folder) == which) and _began_with(folder, data)]
        return journal.find_newest(of_images) if of_images else journal.find(out, self.task.name, which)


def _name_strategy(full: bool | None) -> str | None:
    """Return the strategy of `--full` or `--partial`, None without them. Raises UsageError."""
    if full is not None and not isinstance(full, bool):
        raise UsageError(f"full={full!r} is neither True nor False", "Use full=True for all layers, full=False for the head")
    return None if full is None else ("full" if full else "partial")


def _ask_first(find: Callable[[], T]) -> T:
    """Return what `find` returns, in each process of torchrun what it returns in the first one."""
    if not torchrun.is_started_by_torchrun():
        return find()
    from ..training.processes import run_in_first  # imports torch

    return run_in_first(find)


def _began_with(folder: Path, data: str) -> bool:
    """Return whether an interrupted training has the images of a path; False if its file is damaged."""
    try:
        saved = str(journal.read_facts(folder).settings.get("data") or "")
    except RunError:
        return False
    return saved != "" and Path(saved).resolve() == Path(data).resolve()


def _resolve_teachers(settings: Settings, given: str) -> str:
    """Return the folders of the runs that `--teacher` names, as a training saves them. Raises UsageError or RunError."""
    from ..training.distillation import resolve_teachers

    return resolve_teachers(replace(settings, teacher=given)).teacher


def parse_arguments(task: str, flags: Mapping[str, Any], config: str = "") -> Arguments:
    """Find the task and read the config file. `task` is a name or a path of images; "" takes the task of the config file, or else `--data`.

    A table as `--data` may list images of the path, as that of `tlfast data check --drop` does. Raises UsageError.
    """
    values, like = read_values(config)
    configured = values.get("task", "")
    named = task or like.get("task_file") or (configured if configured in registry.registered_tasks() else flags.get("data") or values.get("data", ""))
    if not named:
        raise UsageError("no task is given", "Give a task or the path of a folder of images, such as: tlfast train fer; list the tasks with: tlfast tasks")
    found, path = registry.find_task(named)
    if task and path and "data" in flags and not is_table(flags["data"]):
        raise UsageError(f"both the path {task} and --data {flags['data']} are given", "Give the path alone, or a table as --data")
    arguments = Arguments(found, {**({"data": path} if path else {}), **flags}, values, like)
    if task:
        check_task(arguments, config)
    return arguments


def check_task(arguments: Arguments, config: str) -> None:
    """Raise UsageError if the config file is for another task than the named one. The settings of a run apply to other images if these are given."""
    named, configured = arguments.task.name, arguments.values.get("task", "")
    if configured not in ("", named) and not (arguments.like and "data" in arguments.flags):
        hint = f"Name the task {configured}, or {'give the settings in a TOML file' if arguments.like else 'remove it from the file'}"
        raise UsageError(f"--config {config} is for the task {configured}, not for {named}", hint)


def find_resumed(resume: str, out: str) -> tuple[str, str]:
    """Return the task, its file or the path of the images, and the run id of an interrupted training: that named `resume`, or the newest for "newest".

    Of the processes of torchrun, the first finds it for all. Raises UsageError.
    """
    return _ask_first(lambda: _find_resumed(resume, os.path.expanduser(out)))


def _find_resumed(resume: str, out: str) -> tuple[str, str]:
    folders = [folder for folder in journal.list_unfinished(out) if resume in (journal.NEWEST, journal.run_id_of(folder))]
    listed = "List the interrupted trainings with: tlfast runs --interrupted"
    if not folders:
        found = "--resume: no interrupted training" if resume == journal.NEWEST else f"--resume {resume}: no interrupted training of that name"
        raise UsageError(f"{found} in {out}", listed)
    if len(folders) > 1 and resume != journal.NEWEST:
        tasks = ", ".join(folder.parent.name for folder in folders)
        raise UsageError(f"--resume {resume}: {len(folders)} interrupted trainings have that name, of {tasks}", f"Give the task as well. {listed}")
    chosen = journal.find_newest(folders) if resume == journal.NEWEST else folders[0]
    facts, run_id = journal.read_facts(chosen), journal.run_id_of(chosen)
    saved, file = facts.settings, facts.get(journal.TASK_FILE, "")
    if file and not os.path.isfile(file):
        raise UsageError(f"--resume: {file}, the file of the task {saved['task']}, is missing", f"Give its new path: tlfast train FILE.py --resume {run_id}")
    if file or saved["task"] in registry.registered_tasks():
        return file or saved["task"], run_id
    if saved["data"] and not is_hub_dataset(saved["data"]) and not os.path.exists(saved["data"]):
        raise UsageError(f"--resume: the images of {run_id}, {saved['data']}, are missing", "Put them back, or start a new training without --resume")
    return saved["data"], run_id


def read_values(config: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a TOML file, or of the `run.json` of a run and its whole content. Raises UsageError."""
    if not config.endswith(".json"):
        return config_files.read_config(config) if config else {}, {}
    like = config_files.read_manifest(config)
    check_repeatable(like, f"the run of {config}")
    return config_files.settings_to_repeat(like), like


def check_repeatable(manifest: Mapping[str, Any], name: str) -> None:
    """Raise UsageError, in which the run is called `name`, if it was fitted by hand: its settings do not describe what was done."""
    if manifest.get("by_hand"):
        raise UsageError(f"{name} was fitted by hand in Python, and no command repeats it", "Open its weights with: tlfast.Run(...).learner()")


def split_list(text: str) -> list[str]:
    """Return the items of a list separated by commas.

    >>> split_list("partial, full")
    ['partial', 'full']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_shares(text: str) -> tuple[float, ...]:
    """Convert a list of percentages to increasing fractions; 1.0 is always included. Raises UsageError.

    >>> parse_shares("10,50")
    (0.1, 0.5, 1.0)
    """
    try:
        shares = {float(part) / 100 for part in split_list(text)} | {1.0}
    except ValueError:
        shares = {0.0}
    if not all(0 < share <= 1 for share in shares):
        raise UsageError(f"--learning-curve {text} is not a list of percentages", "Give percentages, such as: --learning-curve 5,10,25,50,100")
    return tuple(sorted(shares))
