"""Run folders `exports/<task>/<run id>/`: written whole or not at all, found again by task, id or path."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError, nearest

MANIFEST = "run.json"
METRICS = "metrics.json"
LATEST = "latest"


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what `run.json` says of it."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def task(self) -> str:
        return self.manifest["settings"]["task"]


def new_id(strategy: str, arch: str) -> str:
    """Return a run id that sorts by time: `20261122-104530-full-resnet50`."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{strategy}-{arch.replace('/', '_')}"


def check_writable(out: str, task: str, name: str) -> None:
    """Fail before any training where a run could not be written. Raises RunError or UsageError."""
    folder = Path(out) / task
    if name and (folder / name).exists():
        raise UsageError(f"a run named '{name}' exists already in {folder}", "Choose another --name; runs are never overwritten")
    missing = [path for path in (folder, folder.parent) if not path.exists()]
    with _explained(out):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in missing:  # a training that is refused later leaves nothing behind
            path.rmdir()


@contextmanager
def writing(out: str, task: str, run_id: str) -> Iterator[tuple[Path, list[Path]]]:
    """Give a temporary folder to fill; when the block ends well it becomes the run, and the task's latest.

    Yields (folder to fill, a list that holds the final folder afterwards). Where the id is taken, "-2", "-3"... is added.
    """
    parent = Path(out) / task
    published: list[Path] = []
    with _explained(out):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{run_id}.", suffix=".partial", dir=parent))
        temporary.chmod(0o755)
        try:
            yield temporary, published
            published.append(_publish(temporary, parent, run_id))
            _point_latest(parent, published[0].name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def find(reference: str, out: str = "exports") -> Run:
    """Find a run by folder, by `exports/<task>` folder, by task name (its latest) or by run id. Raises RunError."""
    path = Path(reference).expanduser()
    for folder in (path, Path(out) / reference):
        if (folder / MANIFEST).is_file():
            return read(folder)
        if (folder / LATEST).is_file():
            return read(folder / (folder / LATEST).read_text(encoding="utf-8").strip())
    matches = [run for run in folders(out) if run.name == reference]
    if matches:
        return read(max(matches, key=lambda folder: folder.stat().st_mtime))
    raise _not_found(reference, out)


def read(folder: Path) -> Run:
    """Read a run's manifest. Raises RunError where it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["settings"]["task"], manifest["classes"]
    except OSError as error:
        raise RunError(f"{folder} is not a run: {MANIFEST}: {error.strerror}", "tlfast runs lists the runs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / MANIFEST} is damaged ({error})", "Train again; the run cannot be used") from None
    return Run(folder, manifest)


def folders(out: str, task: str = "") -> list[Path]:
    """Return the folders of all finished runs, by task and then by id."""
    return sorted(manifest.parent for manifest in Path(out).glob(f"{task or '*'}/*/{MANIFEST}") if not manifest.parent.name.startswith("."))


def listing(out: str, task: str = "") -> list[dict[str, Any]]:
    """Return what to show of every finished run, oldest first: id, task, strategy, arch, accuracy, macro F1, time and folder.

    A damaged run is left out. Raises RunError where a task is named that has no run.
    """
    rows = []
    for folder in folders(out, task):
        try:
            run, metrics = read(folder), json.loads((folder / METRICS).read_text(encoding="utf-8"))
        except (RunError, OSError, ValueError):
            continue
        chosen = {name: run.manifest["settings"][name] for name in ("task", "strategy", "arch")}
        scores = {"accuracy": metrics["accuracy"], "macro_f1": metrics["macro"]["f1"]}
        rows.append({"run": run.id, **chosen, **scores, "created": run.manifest["created"], "folder": str(folder)})
    if task and not rows:
        raise _not_found(task, out)
    return sorted(rows, key=lambda row: row["created"])


def _not_found(reference: str, out: str) -> RunError:
    known = sorted({name for folder in folders(out) for name in (folder.parent.name, folder.name)})
    hint = nearest(reference, known) or f"Train one first: tlfast train {reference}" + ("; tlfast runs lists the runs" if known else "")
    return RunError(f"no run '{reference}' in {out}", hint)


def _publish(temporary: Path, parent: Path, run_id: str) -> Path:
    """Rename the finished folder to its id, or to the next free variant of it: two trainings may end in the same second."""
    for attempt in range(1, 1000):
        target = parent / (run_id if attempt == 1 else f"{run_id}-{attempt}")
        try:
            # mkdir claims the name; renaming onto an empty folder is atomic on POSIX.
            target.mkdir()
        except FileExistsError:
            continue
        os.replace(temporary, target)
        return target
    raise RunError(f"no free name for run {run_id} in {parent}")


def _point_latest(parent: Path, run_id: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{LATEST}.", dir=parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(run_id + "\n")
    os.chmod(name, 0o644)
    os.replace(name, parent / LATEST)


@contextmanager
def _explained(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {error.filename or out}: {error.strerror or error}", "Name a folder that can be written with --out") from None
