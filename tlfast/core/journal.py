"""Unfinished trainings. The folder `exports/<task>/<run id>.unfinished/` reserves the run id and holds what `--resume` needs."""

from __future__ import annotations

import dataclasses
import glob
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Interrupted, RunError, UsageError
from .files import convert_os_errors, is_file_locked, lock_file, move_to_free_name, write_text_atomic

SUFFIX = ".unfinished"
JOURNAL, LOCK = "journal.json", "lock"
CHECK_SECONDS = 1.0  # time for other processes to end a check of the lock
CLAIM, CLAIM_SECONDS = ".claim", 60.0  # suffix of a folder before its rename; an older one belongs to a killed process
NEWEST = "newest"
TASK_FILE = "task_file"  # key of the path of the file that defines the task, if one does


@dataclass
class Facts:
    """Results and decisions that a resumed training must not make again. In `journal.json` the keys are the names of the fields."""

    settings: dict[str, Any] = field(default_factory=dict)  # as Settings.to_dict returns them
    seconds: float = 0.0  # duration of the training up to the last write
    halvings: int = 0  # of the batch size, after out-of-memory errors
    epochs: int | None = None  # of the last phase, if the learning-rate finder has changed them to fit --minutes
    phase_epochs: dict[str, int] = field(default_factory=dict)  # phase with a checkpoint -> its number of epochs
    planned: dict[str, Any] | None = None  # depths to choose from, and the time budget
    room: list[Any] | None = None  # depth and views that fit the disk or the memory
    precision: str | None = None  # number format of the training, on the first type of device
    images: str | None = None  # fingerprint of the image table
    weights: str | None = None  # SHA-256 of the pretrained backbone
    others: dict[str, Any] = field(default_factory=dict)  # such as "rates of head"; at the top level of the file

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Facts:
        """Return the facts of a journal file, also of earlier versions."""
        known = {f.name for f in dataclasses.fields(cls)} - {"others"}
        others = {name: value for name, value in values.items() if name not in known}
        return cls(**{name: value for name, value in values.items() if name in known}, others=others)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts that differ from their defaults, in one flat dict."""
        unset = Facts()
        names = [f.name for f in dataclasses.fields(self) if f.name != "others"]
        return {**{name: getattr(self, name) for name in names if getattr(self, name) != getattr(unset, name)}, **self.others}

    def get(self, name: str, default: Any = None) -> Any:
        """Return a fact by its key in the file, or `default` if it is not set."""
        return self.to_dict().get(name, default)

    def set(self, name: str, value: Any) -> None:
        """Set a fact by its key in the file."""
        if name != "others" and name in {f.name for f in dataclasses.fields(self)}:
            setattr(self, name, value)
        else:
            self.others[name] = value


class Journal:
    """The facts of one training, in a file. Checkpoints lie in the same folder.

    Without a folder nothing is written, as for the trainings of a comparison. `is_complete` is set when the run has been written: there is nothing
    to resume, whatever happens after it.
    """

    def __init__(self, folder: Path | None = None, facts: Facts | None = None) -> None:
        self.folder, self.facts, self.is_complete = folder, facts or Facts(), False
        self.started, self.earlier_seconds = time.perf_counter(), self.facts.seconds

    @property
    def seconds(self) -> float:
        """Duration of the training in seconds, with the time before an interruption up to the last write."""
        return self.earlier_seconds + time.perf_counter() - self.started

    @property
    def run_id(self) -> str:
        """Id of the run, "" without a folder."""
        return run_id_of(self.folder) if self.folder else ""

    @property
    def run_folder(self) -> Path | None:
        """Folder of the run, if nobody takes its name before; None without a folder."""
        return self.folder.with_name(self.run_id) if self.folder else None

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the fact `name`; if it is not set, compute it with `make` and write it. It must be a value that JSON can hold."""
        missing = object()
        value = self.facts.get(name, missing)
        if value is missing:
            value = make()
            self.facts.set(name, value)
            self.write()
        return value

    def write(self) -> None:
        """Write the facts atomically. If that fails, the training continues without."""
        if self.folder:
            self.facts.seconds = self.seconds
            with suppress(OSError):
                _write_facts(self.folder, self.facts)


@contextmanager
def open_journal(out: str, task: str, run_id: str, settings: dict[str, Any], resume: str = "", *, resumable: bool = True) -> Iterator[Journal]:
    """Reserve a run id ("-2", "-3"... is added if it is taken), or open an unfinished training to resume. Yields its journal.

    The folder is removed when the block ends without an exception, and after an exception if there is no checkpoint or the run is complete. An
    interruption keeps it only if the work is `resumable`. Raises UsageError or RunError.
    """
    parent = Path(out) / task
    missing = [path for path in (parent, parent.parent) if not path.exists()]
    opened = _lock(find(out, task, resume)) if resume else _reserve(parent, run_id, Facts(settings=settings))
    with ExitStack() as closing:
        emptied: list[Path] = []
        closing.callback(_remove_empty, emptied)  # after the lock is closed: NFS keeps the folder of an open file
        folder = closing.enter_context(opened)
        emptied.append(folder)
        journal = Journal(folder, read_facts(folder))
        try:
            yield journal
        except BaseException as error:
            kept = resumable if isinstance(error, KeyboardInterrupt | Interrupted) else bool(list_states(folder))
            if journal.is_complete or not kept:
                _remove(folder)
                if not journal.is_complete:
                    emptied += missing
            raise
        for stale in folder.parent.glob(f".{glob.escape(journal.run_id)}.????????.partial"):  # of a process that was killed while it wrote this run
            shutil.rmtree(stale, ignore_errors=True)
        _remove(folder)


def check_name_free(out: str, task: str, name: str) -> None:
    """Raise UsageError if an unfinished training has the given run name, interrupted or running."""
    folder = Path(out) / task / f"{name}{SUFFIX}"
    if not name or not (folder / JOURNAL).exists():  # an empty folder reserves no name
        return
    if folder in list_interrupted_folders(out, task):
        raise UsageError(f"a training named '{name}' is unfinished in {folder.parent}", f"Resume it with --resume {name}, or choose another --name")
    raise UsageError(f"a training named '{name}' is running in {folder.parent}", "Choose another --name, or wait until it has finished")


def run_id_of(folder: Path) -> str:
    """Return the run id of an unfinished training's folder."""
    return folder.name.removesuffix(SUFFIX)


def list_interrupted_folders(out: str, task: str = "") -> list[Path]:
    """Return the folders of unfinished trainings that no process is working on, of one task or of all."""
    return _select_interrupted(list_unfinished(out, task))


def _select_interrupted(folders: Iterable[Path]) -> list[Path]:
    return [folder for folder in folders if not is_file_locked(folder / LOCK) and (folder / JOURNAL).exists()]  # it may have finished meanwhile


def name_state(phase: str, epoch: int | None = None, batch: int = 0) -> str:
    """Return the name of the file with a finished phase; with `epoch`, that of a checkpoint before `batch` of this epoch. Names sort by time.

    >>> name_state("all layers"), name_state("all layers", 2)
    ('all-layers.pt', 'all-layers.at-00002-0000000.pt')
    """
    within = "" if epoch is None else f".at-{epoch:05d}-{batch:07d}"
    return f"{phase.replace(' ', '-')}{within}.pt"


def parse_state(path: Path) -> tuple[str, int | None]:
    """Return the phase in the name of a state, and the finished epochs of a checkpoint; None if the phase is finished.

    >>> parse_state(Path("all-layers.at-00002-0000000.pt")), parse_state(Path("head.pt"))
    (('all layers', 2), ('head', None))
    """
    phase, _, within = path.stem.partition(".at-")
    return phase.replace("-", " "), int(within.split("-")[0]) if within else None


def list_states(folder: Path) -> list[Path]:
    """Return the checkpoints and the models of finished phases in an unfinished training's folder."""
    return sorted(folder.glob("*.pt"))


def list_unfinished(out: str, task: str = "") -> list[Path]:
    """Return the folders of unfinished trainings, both interrupted and running, of one task or of all."""
    return sorted(path.parent for path in Path(out).glob(f"*/*{SUFFIX}/{JOURNAL}") if task in ("", path.parent.parent.name))


def find(out: str, task: str, which: str) -> Path:
    """Return the folder of an unfinished training: that of the run id `which`, or for "newest" the newest of the task that is not running.

    Raises UsageError.
    """
    folders = {run_id_of(folder): folder for folder in list_unfinished(out, task)}
    elsewhere = [folder for folder in list_unfinished(out) if run_id_of(folder) == which and folder.parent.name != task]
    if elsewhere and which not in folders:
        found = f"--resume {which}: this training is one of {elsewhere[0].parent.name}, not of {task}"
        data = read_facts(elsewhere[0]).settings.get("data")
        raise UsageError(found, "Its command is listed by: tlfast runs --interrupted" + (f"; it began with the images in {data}" if data else ""))
    if not folders:
        named = "" if which == NEWEST else f"--resume {which}: "
        raise UsageError(f"{named}no interrupted training of {task} in {out}", "Leave out --resume to start a new training")
    if which == NEWEST:
        return find_newest(folders.values())
    if which not in folders:
        raise UsageError(f"--resume {which}: no interrupted training of that name", f"Interrupted trainings: {', '.join(folders)}")
    return folders[which]


def find_newest(folders: Collection[Path]) -> Path:
    """Return the folder of the newest training that no process is working on; if all are running, of the newest. There must be at least one."""
    return max(_select_interrupted(folders) or folders, key=lambda folder: (folder / JOURNAL).stat().st_mtime_ns)


def read_facts(folder: Path) -> Facts:
    """Read the facts of an unfinished training. Raises RunError if they are damaged."""
    try:
        return Facts.from_dict(json.loads((folder / JOURNAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{folder / JOURNAL} is damaged ({error})", "Leave out --resume to start a new training") from None


def read_journal(out: str, task: str, which: str) -> Journal:
    """Return a journal with the facts of an unfinished training, which writes nothing; with `which` "" an empty one. Raises UsageError or RunError."""
    return Journal(None, read_facts(find(out, task, which)) if which else None)


def _write_facts(folder: Path, facts: Facts) -> None:
    write_text_atomic(folder / JOURNAL, json.dumps(facts.to_dict(), indent=1) + "\n")


@contextmanager
def _reserve(parent: Path, run_id: str, facts: Facts) -> Iterator[Path]:
    """Make the folder of a new training under a free name, and lock it for this process. Raises RunError."""
    with ExitStack() as lock:
        with convert_os_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
            _remove_stale_claims(parent)
            # Journal and lock are made before the rename: a process killed in between must not leave a reserved name that cannot be resumed, and
            # others must not take the training for an interrupted one.
            temporary = Path(tempfile.mkdtemp(prefix=".", suffix=CLAIM, dir=parent))
            try:
                _write_facts(temporary, facts)
                lock.enter_context(_lock(temporary))
                folder = move_to_free_name(temporary, parent, run_id, SUFFIX)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        yield folder


def _remove_stale_claims(parent: Path) -> None:
    """Remove the folders of processes that were killed before the rename."""
    for claim in parent.glob(f".*{CLAIM}"):
        with suppress(OSError):
            if time.time() - claim.stat().st_mtime > CLAIM_SECONDS:
                shutil.rmtree(claim, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a training's folder. The journal goes first: without it the folder is not listed."""
    with suppress(OSError):
        (folder / JOURNAL).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders that are empty; the innermost comes first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[Path]:
    """Lock an unfinished training for this process, and yield its folder; the lock ends with the process. Raises RunError if another process has it."""
    taken = RunError(f"{folder} is being trained by another process", "Wait for it, or start a new training without --resume")
    with lock_file(folder / LOCK, taken, CHECK_SECONDS):
        yield folder
