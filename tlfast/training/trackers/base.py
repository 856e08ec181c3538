"""The protocol of an experiment tracker, and what it is told about a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

Status = Literal["finished", "interrupted", "failed"]
SYSTEM = "system/"  # prefix of the names of the load of the machine
PICTURES = (".png", ".jpg")  # suffixes of files that are shown as pictures


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told at the start of a run.

    Attributes:
        task: name of the task.
        out: folder for runs.
        key: identifies the tracked run; the same after `--resume`.
        resumed: the run continues one with the same key, which this tracker had too.
        group: name of the comparison that the run belongs to, or "".
        values: nested facts with texts as keys: settings, versions, data with its fingerprint, weights.
    """

    task: str
    out: str
    key: str
    resumed: bool = False
    group: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> str:
        """Name of the project for trackers without one in an environment variable.

        >>> RunInfo("digits", "exports", "a1").project
        'tlfast-digits'
        """
        return f"tlfast-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.task)}"[:100]

    def flat(self) -> dict[str, str | float | bool]:
        """Return the values in one level.

        >>> RunInfo("digits", "exports", "a1", values={"settings": {"bs": 64}, "sizes": [1, 2]}).flat()
        {'settings.bs': 64, 'sizes': '[1, 2]'}
        """
        return _flatten(self.values)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    flat: dict[str, str | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = "" if value is None else json.dumps(value)
    return flat


class Tracker(Protocol):
    """An experiment tracker. Its methods are called in order, in a process of its own; an exception ends the process, but not the training.

    A new object is made for each run. The class attributes are its declaration.
    """

    name: ClassVar[str]  # in --log
    title: ClassVar[str]
    package: ClassVar[str]  # module that must be installed
    install: ClassVar[str]  # command that installs it
    place: ClassVar[str]  # where the records are, and the environment variables that change it, for the documentation
    logs_load: ClassVar[bool]  # whether it logs the load of the machine by itself

    def start(self, run_id: str, config: RunInfo) -> None:
        """Begin a run, or continue the run with the same key."""
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log figures at a step of the training. Steps do not decrease, except for those repeated after a kill."""
        ...

    def file(self, path: Path) -> None:
        """Add a file to the run. It exists until the next call returns."""
        ...

    def end(self, status: Status) -> None:
        """End the run and write everything that is left."""
        ...
