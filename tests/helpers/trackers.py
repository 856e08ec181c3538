"""Trackers that are no experiment tracker: they write down their calls, or fail in one of the ways in which a tracker can."""

from __future__ import annotations

import errno
import json
import os
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tlfast.training.trackers import registry

CALLS = "TLFAST_TEST_CALLS"  # environment variable: the file to which the calls are written


class Recording:
    """Writes each call as a line of JSON."""

    name = "recording"
    title = "Recording"
    package = "json"
    install = "pip install recording"
    place = "a file"
    logs_load = False

    def note(self, *call: Any) -> None:
        with Path(os.environ[CALLS]).open("a") as file:
            file.write(json.dumps(call) + "\n")

    def start(self, run_id, config):
        random.random()  # as a tracker may draw an id
        print("hello")
        self.note("start", run_id, asdict(config))

    def log(self, values, step):
        self.note("log", values, step)

    def file(self, path):
        self.note("file", path.name, path.is_file())

    def end(self, status):
        self.note("end", status)


class Raising(Recording):
    """Raises at the first figures."""

    name = "raising"

    def log(self, values, step):
        raise RuntimeError("no such project")


class RaisingAtStart(Recording):
    """Raises before it has begun."""

    name = "offline"

    def start(self, run_id, config):
        raise ConnectionError("the server is out of reach")


class FullDisk(Recording):
    """Fills its disk."""

    name = "full"

    def log(self, values, step):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/records")


class Hanging(Recording):
    """Hangs at the first figures."""

    name = "hanging"

    def log(self, values, step):
        time.sleep(60)


class Crashing(Recording):
    """Ends its process."""

    name = "crashing"

    def log(self, values, step):
        os._exit(3)


class NotInstalled(Recording):
    """Needs a package that does not exist."""

    name = "absent"
    package = "no_such_package_anywhere"
    install = 'pip install "tlfast[absent]"'


FAKES = {kind.name: kind for kind in (Recording, Raising, RaisingAtStart, FullDisk, Hanging, Crashing, NotInstalled)}


def use_fakes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Register the trackers of this module; return the file of their calls."""
    known = registry.registered_trackers()
    monkeypatch.setattr(registry, "registered_trackers", lambda: {**known, **FAKES})
    monkeypatch.setenv(CALLS, str(folder / "calls.jsonl"))
    return folder / "calls.jsonl"


def read_calls(path: Path) -> list[list[Any]]:
    """Return the calls that were written down, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_table(calls: list[list[Any]]) -> list[dict[str, float]]:
    """Return the logged epochs as rows, one for each."""
    logged = [call[1] for call in calls if call[0] == "log" and "epoch/accuracy" in call[1]]
    return [{name.removeprefix("epoch/"): value for name, value in values.items() if name.startswith("epoch/")} for values in logged]


# Records that the real trackers are asked to write and to read back.
EPOCHS = [{"epoch/accuracy": 0.25, "epoch/valid_loss": 1.5}, {"epoch/accuracy": 0.75, "epoch/valid_loss": 0.5}]
CONFIG = {"settings": {"bs": 64, "lr": "auto", "flip": True, "limit": None}, "data": {"fingerprint": "abc", "counts": {"train": {"a": 1}}}}


def write_records(tracker: Any, config: Any, files: list[Path], steps: tuple[int, ...] = (10, 20), status: str = "finished") -> None:
    """Call the methods of a tracker as a training does."""
    tracker.start("my-run", config)
    for values, step in zip(EPOCHS, steps, strict=False):
        tracker.log({**values, "step/loss": 0.5}, step)
    tracker.log({"final/accuracy": 0.75}, steps[-1])
    for path in files:
        tracker.file(path)
    tracker.end(status)
