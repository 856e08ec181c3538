"""Interrupted trainings: how far they came, and the commands that resume them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import tasks
from ..core import Note, OnEvent, RunError, Settings, TlfastError, ignore_event, journal
from ..core.errors import first_line
from ..core.journal import TASK_FILE, Facts
from ..core.settings import describe_strategy


@dataclass(frozen=True)
class InterruptedTraining:
    """A training that `train --resume` continues.

    Attributes:
        run: run id.
        task: name of the task.
        strategy: strategy, such as "partial", "full" or "depth 4".
        arch: backbone.
        size: side length of the input image, in pixels.
        seconds: duration up to the last checkpoint.
        progress: what is saved, such as "head finished, 3 of 8 epochs of all layers finished".
        command: command that resumes it.
        folder: folder of its checkpoints.
    """

    run: str
    task: str
    strategy: str
    arch: str
    size: int
    seconds: float
    progress: str
    command: str
    folder: str

    def describe(self) -> str:
        """Return the training and its progress in one line."""
        return f"{self.run} ({self.strategy}, {self.arch}, {self.size} px), {self.progress}, after {self.seconds / 60:.1f} minutes"

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


def list_interrupted(out: str, task: str = "", on_event: OnEvent = ignore_event) -> list[InterruptedTraining]:
    """Return the interrupted trainings of a task, or of all tasks, in the order of their folders.

    Damaged ones, and those with settings that this version refuses, are left out, and a note is sent for each.
    """
    found = []
    for folder in journal.list_interrupted_folders(out, task):
        try:
            found.append(read_interrupted(folder))
        except (TlfastError, KeyError, TypeError, ValueError) as error:
            reason = error.message if isinstance(error, RunError) else f"{folder} cannot be resumed ({first_line(error)})"
            on_event(Note("interrupted", f"left out: {reason}"))
    return found


def read_interrupted(folder: Path) -> InterruptedTraining:
    """Return the interrupted training in a folder. Raises RunError if its journal is damaged, UsageError if this version refuses its settings."""
    facts = journal.read_facts(folder)
    settings, run_id = Settings.from_dict(facts.settings), journal.run_id_of(folder)
    return InterruptedTraining(
        run=run_id,
        task=settings.task,
        strategy=describe_strategy(settings.to_dict()),
        arch=settings.arch,
        size=settings.size,
        seconds=facts.seconds,
        progress=_describe_progress(folder, facts),
        command=resume_command(settings, run_id, facts.get(TASK_FILE, "")),
        folder=str(folder),
    )


def resume_command(settings: Settings, run_id: str, file: str = "") -> str:
    """Return the command that resumes an interrupted training; `file` defines its task, if it is not registered. Other settings are in the journal."""
    out = settings.out if settings.out != Settings.out else None
    source = settings.data if settings.task in tasks.registered_tasks() else file or settings.data or settings.task
    return tasks.train_command(settings.task, source, {"out": out, "resume": run_id})


def _describe_progress(folder: Path, facts: Facts) -> str:
    """Return the finished phases, and the number of finished epochs of the phase that was interrupted."""
    phases = dict(map(journal.parse_state, journal.list_states(folder)))  # of several checkpoints of a phase, the newest is the last
    finished = [f"{phase} finished" for phase, epochs in phases.items() if epochs is None]
    for phase, epochs in phases.items():
        if epochs is not None:
            wanted = facts.phase_epochs.get(phase, "?")  # earlier versions did not write it
            finished.append(f"{epochs} of {wanted} epochs of {phase} finished")
    return ", ".join(finished) or "no checkpoint yet"
