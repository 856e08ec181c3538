"""`tlfast train --gpus`: one training by several processes of this machine. If one fails, its error is raised here."""

from __future__ import annotations

import pickle
import signal
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core import Interrupted, Note, OnEvent, Settings, TlfastError, TrainingError, UsageError, files, torchrun
from ..core.errors import first_line
from ..core.journal import NEWEST
from ..data import Task
from ..distributed.launcher import launch
from ..models import pick_device
from ..training.processes import HalveBatchError, PeerLostError
from .elsewhere import pack_task, unpack_task
from .interrupted import resume_command

if TYPE_CHECKING:
    from .train import TrainResult

REQUEST, RESULT, FAILURE = "request", "result", "failure-"  # files of a training, in a private folder


@dataclass(frozen=True)
class Training:
    """A training to be done by the processes of `settings.gpus`: the arguments of `train_run`, and how to show it.

    Attributes:
        task, settings, resume, like: as in `train_run`.
        quiet, as_json: as the options of the command line.
        show: whether to print the result.
    """

    task: Task
    settings: Settings
    resume: str = ""
    like: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    as_json: bool = False
    show: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a task of the user by its file, because its functions cannot be imported by name."""
        return _restore_training, ({**vars(self), "task": pack_task(self.task), "like": dict(self.like)},)


def _restore_training(values: Mapping[str, Any]) -> Training:
    return Training(**{**values, "task": unpack_task(values["task"])})


def train_in_processes(training: Training, worker: str, on_event: OnEvent) -> str:
    """Train in `training.settings.gpus` processes. Returns the folder of the run.

    `worker` is a module that calls `run_worker` with its argument. After an out-of-memory error the training continues with half the batch. Raises
    the error of the process that failed, or TrainingError if it was killed.
    """
    settings = training.settings
    _check_gpus(settings)
    _check_task(training.task)
    while True:
        with tempfile.TemporaryDirectory(prefix="tlfast-") as name:
            folder = Path(name)
            (folder / REQUEST).write_bytes(pickle.dumps(training))
            failed, interrupted = dict[int, int](), False
            try:
                failed = launch(worker, str(folder), settings.gpus)
            except KeyboardInterrupt:
                interrupted = True
            if (folder / RESULT).exists():  # also if the others were interrupted while the first one finished
                return (folder / RESULT).read_text(encoding="utf-8")
            cause = _find_cause(folder, training, failed)
        if interrupted or not isinstance(cause, HalveBatchError) or not cause.run:
            raise cause
        on_event(Note(cause.phase, f"{cause.message}: starting again with half as many images in a batch, and twice as many batches per step"))
        training = replace(training, resume=cause.run)


def run_worker(folder: Path, training: Training, on_event: OnEvent) -> TrainResult | None:
    """Train as one of the processes, and leave the result or the error in `folder`. Returns None after an error."""
    from .train import train_run  # imports fastai, which the process that starts the others does not need

    rank = torchrun.rank()
    try:
        result = train_run(training.task, training.settings, on_event, training.resume, training.like)
    except KeyboardInterrupt:
        _write_failure(folder, rank, Interrupted("interrupted"))
        return None
    except Exception as error:
        _write_failure(folder, rank, error)
        return None
    if not rank:
        (folder / RESULT).write_text(result.folder, encoding="utf-8")
    return result


def read_request(folder: Path) -> Training:
    """Return the training that the processes of `folder` do."""
    training: Training = pickle.loads((folder / REQUEST).read_bytes())
    return training


def _write_failure(folder: Path, rank: int, error: Exception) -> None:
    """Write an error for the process that has started this one. Errors of other libraries become TrainingError, with their traceback as the cause."""
    text = "".join(traceback.format_exception(error))
    known = error if isinstance(error, TlfastError) else TrainingError(f"{type(error).__name__}: {error}", "Use --debug to show its traceback")
    with suppress(OSError):  # the folder is gone if that process was killed
        files.write_atomic(folder / f"{FAILURE}{rank}", lambda file: pickle.dump((known, text), file))


class RemoteError(Exception):
    """The traceback of an error in another process, as text."""


def _find_cause(folder: Path, training: Training, failed: Mapping[int, int]) -> TlfastError:
    """Return the error that ended a training: an error of its own, before a signal, before an interruption, before the loss of another process."""
    failures = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{FAILURE}[0-9]*"), key=lambda path: path.stat().st_mtime_ns)]
    ranked = sorted(failures, key=lambda failure: isinstance(failure[0], (Interrupted, PeerLostError)) + isinstance(failure[0], PeerLostError))
    if ranked and not isinstance(ranked[0][0], (Interrupted, PeerLostError)):
        error: TlfastError = ranked[0][0]
        error.__cause__ = RemoteError(ranked[0][1])
        return error
    hints = [error.hint for error, _ in ranked if error.hint]  # of the first process, which knows the id of the run
    killed = [f"process {rank} by {signal.Signals(-code).name}" for rank, code in failed.items() if code < 0]
    if killed:
        hint = hints[0] if hints else f"To resume: {resume_command(training.settings, training.resume or training.settings.name or NEWEST)}"
        return TrainingError(f"the training was ended: {', '.join(killed)}", f"If memory ran out, use a smaller --bs. {hint}")
    if unexplained := [rank for rank in failed if not (folder / f"{FAILURE}{rank}").exists()]:
        ended = ", ".join(f"process {rank} with exit code {failed[rank]}" for rank in unexplained)
        return TrainingError(f"the training was ended: {ended}", " ".join(["The messages of the process are above.", *hints[:1]]))
    interrupted = [error for error, _ in ranked if isinstance(error, Interrupted)]
    named = [error for error in interrupted if error.hint]
    return (named or interrupted or [error for error, _ in ranked] or [Interrupted("interrupted")])[0]


def _check_task(task: Task) -> None:
    """Raise UsageError for a task whose functions other processes cannot import."""
    if task.file:
        return
    hint = f'Define the task in a .py file, and give that, such as: tlfast.train("{task.name}.py", ...)'
    if names := [name for name in ("rows", "arrange", "make") if getattr(getattr(task, name), "__module__", "") == "__main__"]:
        raise UsageError(f"--gpus starts other processes, and {names[0]} of the task {task.name} is defined in this one", hint)
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(f"--gpus starts other processes, and the task {task.name} cannot be sent to them ({first_line(error)})", hint) from None


def _check_gpus(settings: Settings) -> None:
    """Raise UsageError if there are fewer GPUs than processes."""
    device = pick_device(settings.device).type
    if device == "cpu" and settings.device == "cpu":
        return
    if device != "cuda":
        hint = f"Leave out --gpus, or use --device cpu to train in {settings.gpus} processes on the cores, for a test"
        raise UsageError(f"--gpus {settings.gpus}: torch finds no GPU with CUDA", hint)
    if settings.gpus > torch.cuda.device_count():
        raise UsageError(f"--gpus {settings.gpus}: this machine has {torch.cuda.device_count()}", "For several machines use torchrun; see docs/howto/scale.md")
