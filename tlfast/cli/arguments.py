"""From what was typed to a task and its settings: flags, the config file, the run that is repeated or gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import tasks as registry
from ..core import config_files, journal
from ..core.errors import UsageError
from ..core.settings import Settings, flag_name
from ..data.task import Task
from ..tasks import resolve


@dataclass(frozen=True)
class Arguments:
    """A task and what is said of its settings: by flags, and by a config file; `like` is the manifest of a run that is repeated, if one is."""

    task: Task
    flags: Mapping[str, Any]
    values: Mapping[str, Any]
    like: Mapping[str, Any]

    def settings(self, full: bool | None) -> Settings:
        """Merge all that was said; `full` is the strategy, None where it was not typed. Raises UsageError."""
        strategy = None if full is None else ("full" if full else "partial")
        return resolve.resolve_settings(self.task, strategy, self.flags, self.values)

    def resumed(self, which: str, full: bool | None) -> Settings:
        """Return the settings of an interrupted training. Raises UsageError where something else was typed than it began with."""
        wanted = {**self.values, **self.flags}
        folder = journal.find(str(wanted.get("out", Settings.out)), self.task.name, which)
        settings = Settings.from_dict(journal.read(folder).settings)
        if full is not None:
            wanted["depth"] = "all" if full else "0"
        for name, value in wanted.items():
            own = getattr(settings, name, value)
            if own != value and not (name == "data" and Path(own).resolve() == Path(value).resolve()):
                raise UsageError(f"{flag_name(name)} {value}: the interrupted training began with {own}", "Leave it out, or leave out --resume to train anew")
        return settings


def parse_arguments(task: str, flags: Mapping[str, Any], config: str = "") -> Arguments:
    """Find the task that is named (or a path of images) and read the config file; the `run.json` of a run says the task too. Raises UsageError."""
    like = config_files.read_manifest(config) if config.endswith(".json") else {}
    values = config_files.settings_to_repeat(like) if like else config_files.read_config(config) if config else {}
    named = task or (values.get("task", "") if values.get("task", "") in registry.registered_tasks() else values.get("data", ""))
    if not named:
        raise UsageError("no task is named", "Such as: tlfast train fer; tlfast tasks lists them. Or the path of a folder of images")
    chosen, path = registry.find_task(named)
    if task and path and "data" in flags:
        raise UsageError(f"both the path {task} and --data {flags['data']} are given", "Give a task's name with --data, or the path alone")
    return Arguments(chosen, {**({"data": path} if path else {}), **flags}, values, like)


def split_list(text: str) -> list[str]:
    """Return what stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_shares(text: str) -> tuple[float, ...]:
    """Return percentages as growing shares that end in 1; nothing but 1 for an empty text. Raises UsageError."""
    try:
        found = {float(part) / 100 for part in split_list(text)} | {1.0}
    except ValueError:
        found = {0.0}
    if not all(0 < share <= 1 for share in found):
        raise UsageError(f"--learning-curve {text} is not a list of percentages", "Such as: --learning-curve 5,10,25,50,100")
    return tuple(sorted(found))
