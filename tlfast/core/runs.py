"""Run folders `exports/<task>/<run id>/`: written whole or not at all, found again by task, id or path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .errors import RunError, UsageError, suggest_name
from .files import move_file
from .settings import describe_strategy

MANIFEST = "run.json"
SEAL = "run.json.sha256"  # of the manifest, which holds all the others; sha256sum -c reads it
METRICS = "metrics.json"
COMPARISON = "comparison.json"
LATEST = "latest"
UNVERIFIED = "Copy the run again from where it was trained, train again, or use it as it is with --no-verify"


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
    return f"{datetime.now():%Y%m%d-%H%M%S}-{strategy.replace(' ', '-')}-{arch.replace('/', '_')}"


def check_writable(out: str, task: str, name: str) -> None:
    """Fail before any training where a run could not be written. Raises RunError or UsageError."""
    folder = Path(out) / task
    if name and (folder / name).exists():
        raise UsageError(f"a run named '{name}' exists already in {folder}", "Choose another --name; runs are never overwritten")
    missing = [path for path in (folder, folder.parent) if not path.exists()]
    with _convert_os_errors(out):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for path in missing:  # a training that is refused later leaves nothing behind
            path.rmdir()


@contextmanager
def create_run(out: str, task: str, run_id: str, latest: bool = True) -> Iterator[tuple[Path, list[Path]]]:
    """Give a temporary folder to fill; when the block ends well it becomes the run, and the task's latest unless that is not wanted.

    Yields (folder to fill, a list that holds the final folder afterwards). Where the id is taken, "-2", "-3"... is added.
    """
    parent = Path(out) / task
    published: list[Path] = []
    with _convert_os_errors(out):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{run_id}.", suffix=".partial", dir=parent))
        temporary.chmod(0o755)
        try:
            yield temporary, published
            published.append(_publish(temporary, parent, run_id))
            if latest:
                _point_latest(parent, published[0].name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def find(reference: str, out: str = "exports", verified: bool = False) -> Run:
    """Find a run by folder, by `exports/<task>` folder, by task name (its latest) or by run id; look at its files if it is to be `verified`.

    Raises RunError.
    """
    run = _find(reference, out)
    if verified:
        verify(run)
    return run


def _find(reference: str, out: str) -> Run:
    path = Path(reference).expanduser()
    for folder in (path, Path(out) / reference):
        if (folder / MANIFEST).is_file():
            return read(folder)
        if (folder / LATEST).is_file():
            return read(folder / (folder / LATEST).read_text(encoding="utf-8").strip())
    matches = [run for run in list_folders(out) if run.name == reference]
    if matches:
        return read(max(matches, key=lambda folder: folder.stat().st_mtime))
    raise _not_found_error(reference, out)


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


def compute_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run, by its path in the folder; the manifest, which will hold them, left out."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: _hash_file(path) for name, path in names.items() if not name.startswith(".") and name not in (MANIFEST, SEAL)}


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `run.json`, which lists the SHA-256 of all the run's files, and its own SHA-256 beside it. The last thing written of a run."""
    _write_sealed(folder, {**manifest, "files": compute_checksums(folder)})


def _write_sealed(folder: Path, manifest: dict[str, Any]) -> None:
    text = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    for name, content in ((MANIFEST, text), (SEAL, _format_seal(text))):
        temporary = folder / f".{name}"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)


def add_file(run: Run, name: str, source: Path, facts: dict[str, Any]) -> Run:
    """Move a new file into a run, tell of it under `exports` in `run.json`, and seal the run again. Raises UsageError where it is there already."""
    target = run.folder / name
    with _convert_os_errors(str(run.folder)):
        try:
            move_file(source, target)
        except FileExistsError:
            left_over = name not in run.manifest.get("files", {}) and _hash_file(target) == _hash_file(
                source
            )  # by an export that was killed before it could tell
            if not left_over:
                raise UsageError(f"{target} exists already", "Nothing is overwritten: move it away first") from None
            source.unlink()
        return _update_seal(run, {"exports": {**run.manifest.get("exports", {}), name: facts}}, name)


def record_test_use(run: Run, command: str, figures: dict[str, Any], *names: str) -> Run:
    """Record in `run.json` that the test part was looked at, when and by what, with the SHA-256 of files that were written for it."""
    look = {"when": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": command, **figures}
    with _convert_os_errors(str(run.folder)):
        return _update_seal(run, {"test_looks": [*run.manifest.get("test_looks", []), look]}, *names)


def _update_seal(run: Run, changes: dict[str, Any], *names: str) -> Run:
    """Change what `run.json` says, and list the SHA-256 of files that were written since."""
    files = {**(run.manifest.get("files") or compute_checksums(run.folder)), **{name: _hash_file(run.folder / name) for name in names}}
    manifest = {**run.manifest, **changes, "files": files}
    _write_sealed(run.folder, manifest)
    return Run(run.folder, manifest)


def verify(run: Run) -> None:
    """Compare every file of a run with the SHA-256 that was written when it was exported. Raises RunError that names the first that differs.

    A run of a version that wrote none passes.
    """
    expected = run.manifest.get("files", {})
    if not expected:
        return
    path = run.folder / SEAL
    try:
        # First of all, for the manifest's word on the others counts only if it is whole itself.
        if path.read_bytes() != _format_seal((run.folder / MANIFEST).read_bytes()):
            raise RunError(f"{run.folder / MANIFEST} does not fit its seal {SEAL}: one of the two is not as it was exported", UNVERIFIED)
        for name, digest in expected.items():
            path = run.folder / name
            if _hash_file(path) != digest:
                raise RunError(f"{path} is not as it was exported: its SHA-256 is another", UNVERIFIED)
    except OSError as error:
        raise RunError(f"{path} belongs to the export and cannot be read ({error.strerror})", UNVERIFIED) from None


def _format_seal(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def list_folders(out: str, task: str = "") -> list[Path]:
    """Return the folders of all finished runs, by task and then by id."""
    return sorted(manifest.parent for manifest in Path(out).glob(f"{task or '*'}/*/{MANIFEST}") if not manifest.parent.name.startswith("."))


def list_runs(out: str, task: str = "") -> list[dict[str, Any]]:
    """Return what to show of every finished run, oldest first: id, task, strategy, arch, accuracy, macro F1, time and folder.

    A damaged run is left out. Raises RunError where a task is named that has no run.
    """
    rows = []
    for folder in list_folders(out, task):
        try:
            run, metrics = read(folder), json.loads((folder / METRICS).read_text(encoding="utf-8"))
        except (RunError, OSError, ValueError):
            continue
        values = run.manifest["settings"]
        chosen = {"task": values["task"], "strategy": describe_strategy(values), "arch": values["arch"]}
        scores = {"accuracy": metrics["accuracy"], "macro_f1": metrics["macro"]["f1"]}
        rows.append({"run": run.id, **chosen, **scores, "created": run.manifest["created"], "folder": str(folder)})
    if task and not rows:
        raise _not_found_error(task, out)
    return sorted(rows, key=lambda row: row["created"])


def _not_found_error(reference: str, out: str) -> RunError:
    known = sorted({name for folder in list_folders(out) for name in (folder.parent.name, folder.name)})
    if Path(reference).is_file():
        return RunError(f"{reference} is no run", "The run comes first, then the images: tlfast predict RUN IMAGE...; tlfast runs lists the runs")
    hint = suggest_name(reference, known) or f"Train one first: tlfast train {reference}" + ("; tlfast runs lists the runs" if known else "")
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
def _convert_os_errors(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write to {error.filename or out}: {error.strerror or error}", "Name a folder that can be written with --out") from None
