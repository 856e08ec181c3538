"""Trainings under way: `exports/<task>/<run id>.unfinished/` claims a run's name, and holds what is needed to go on with one that was stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import Interrupted, RunError, UsageError
from .files import write_atomic

if os.name == "posix":
    import fcntl

SUFFIX = ".unfinished"
JOURNAL, LOCK = "journal.json", "lock"
CLAIM, CLAIM_SECONDS = ".claim", 60.0  # of a folder that is about to be named; longer it does not take
NEWEST = "newest"


class Journal:
    """What a training has done so far that others must not do again: facts by name, in a file; states of the network lie beside it.

    Without a folder nothing is kept, as for the trainings of a comparison.
    """

    def __init__(self, folder: Path | None = None, facts: dict[str, Any] | None = None) -> None:
        self.folder, self.facts = folder, facts or {}
        self.began, self.earlier = time.perf_counter(), self.facts.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """Seconds that this training has taken, those before an interruption counted as far as they were written down."""
        return self.earlier + time.perf_counter() - self.began

    @property
    def run_id(self) -> str:
        return run_id_of(self.folder) if self.folder else ""

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` says, anything that JSON can hold; from before the interruption if it was asked then."""
        if name not in self.facts:
            self.facts[name] = make()
            self.write()
        return self.facts[name]

    def write(self) -> None:
        """Write the facts to disk, whole or not at all; where that fails the training goes on without."""
        if self.folder:
            self.facts["seconds"] = self.seconds
            with suppress(OSError):
                write_atomic(self.folder / JOURNAL, lambda file: file.write((json.dumps(self.facts, indent=1) + "\n").encode()))


@contextmanager
def open_journal(out: str, task: str, run_id: str, facts: dict[str, Any], resume: str = "") -> Iterator[Journal]:
    """Claim a run's name ("-2", "-3"... is added where it is taken), or go on with an unfinished run; give its journal.

    The folder goes when the block ends well, and when it fails before anything was learned. Raises UsageError or RunError.
    """
    parent = Path(out) / task
    missing = [path for path in (parent, parent.parent) if not path.exists()]
    folder = find(out, task, resume) if resume else _claim(parent, run_id, facts)
    with _lock(folder):
        journal = Journal(folder, read(folder))
        try:
            yield journal
        except (KeyboardInterrupt, Interrupted):
            raise
        except BaseException:
            if not list_states(folder):
                shutil.rmtree(folder, ignore_errors=True)
                for path in missing:  # a training that is refused leaves nothing behind
                    with suppress(OSError):
                        path.rmdir()
            raise
        for stale in folder.parent.glob(f".{journal.run_id}.*.partial"):  # of an attempt to write this run that was killed
            shutil.rmtree(stale, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def check_free(out: str, task: str, name: str) -> None:
    """Raise UsageError where a run that is given a name would share it with one that is unfinished."""
    if name and (Path(out) / task / f"{name}{SUFFIX}").exists():
        raise UsageError(f"a training named '{name}' is unfinished in {Path(out) / task}", f"Go on with it by --resume {name}, or choose another --name")


def run_id_of(folder: Path) -> str:
    return folder.name.removesuffix(SUFFIX)


def list_interrupted(out: str, task: str = "*") -> list[Path]:
    """Return the folders of unfinished runs that nobody is at work on, of one task or of all."""
    found = []
    for folder in list_folders(out, task):
        with suppress(RunError, OSError), _lock(folder):
            found.append(folder)
    return found


def list_states(folder: Path) -> list[Path]:
    """Return the files of what was learned so far."""
    return sorted(folder.glob("*.pt"))


def list_folders(out: str, task: str = "*") -> list[Path]:
    """Return the folders of unfinished runs: of interrupted trainings, and of those that are under way."""
    return sorted(path.parent for path in Path(out).glob(f"{task}/*{SUFFIX}/{JOURNAL}"))


def find(out: str, task: str, which: str) -> Path:
    """Return the folder of an unfinished run: the newest of a task, or the one of that id. Raises UsageError where there is none."""
    found = {run_id_of(folder): folder for folder in list_folders(out, task)}
    if not found:
        raise UsageError(f"no interrupted training of {task} in {out}", "Leave out --resume to begin one")
    if which == NEWEST:
        return max(found.values(), key=lambda folder: (folder / JOURNAL).stat().st_mtime_ns)
    if which not in found:
        raise UsageError(f"--resume {which}: no interrupted training of that name", f"There is: {', '.join(found)}")
    return found[which]


def read(folder: Path) -> dict[str, Any]:
    """Read the facts of an unfinished run. Raises RunError where they are damaged."""
    try:
        return json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / JOURNAL} is damaged ({error})", "Train again, without --resume") from None


def _claim(parent: Path, run_id: str, facts: dict[str, Any]) -> Path:
    """Make the folder of a run that begins, under a name that neither a run nor another beginning one has."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_claims(parent)
        # It comes to its name with its journal inside: a kill in between would leave a name that nobody can go on with.
        temporary = Path(tempfile.mkdtemp(prefix=".", suffix=CLAIM, dir=parent))
        try:
            write_atomic(temporary / JOURNAL, lambda file: file.write((json.dumps(facts, indent=1) + "\n").encode()))
            for attempt in range(1, 1000):
                name = run_id if attempt == 1 else f"{run_id}-{attempt}"
                folder = parent / f"{name}{SUFFIX}"
                if not (parent / name).exists() and _try_rename(temporary, folder):
                    return folder
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise RunError(f"cannot write to {parent}: {error.strerror or error}", "Name a folder that can be written with --out") from None
    raise RunError(f"no free name for run {run_id} in {parent}")


def _try_rename(temporary: Path, folder: Path) -> bool:
    """Rename a folder unless the name is taken, as it is by any folder that holds something."""
    try:
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _remove_stale_claims(parent: Path) -> None:
    """Remove what a training left that was killed while it took its name."""
    for left in parent.glob(f".*{CLAIM}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > CLAIM_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold an unfinished run for this process; the lock goes with the process, however that ends. Raises RunError where another has it."""
    with (folder / LOCK).open("w") as file:
        if os.name == "posix":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{folder} is being trained by another process", "Wait for it, or train anew without --resume") from None
        yield
