"""Run folders `exports/<task>/<run id>/`: complete or absent, found by task, run id or path."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from . import system
from .errors import DataError, RunError, UsageError, first_line, make_printable, suggest_name
from .events import Note, OnEvent, ignore_event
from .files import convert_os_errors, hash_file, lock_folder, move_file, move_to_free_name, set_permissions, write_text_atomic
from .journal import SUFFIX as UNFINISHED
from .manifest import check_manifest
from .run_files import EXAMPLE_FILE, MANIFEST, METRICS_FILE, ONNX_FILE, SEAL, name_split_file
from .seals import UNVERIFIED, compare_checksums, compute_checksums, write_sealed
from .setting_checks import LATEST
from .settings import Settings, describe_strategy

EVALUATED = ("valid", "test")  # splits that a run can be evaluated on
ALL = "all"  # in place of a split: all images of another source
COMPARISON = "comparison.json"
HUB_SCHEME = "hf://"  # begins the address of a run on the Hugging Face hub
BY_HAND = "by hand"  # strategy of a run that was fitted by hand in Python
SHOWN_RUNS = 5  # in a hint
SCRATCH = ".files."  # begins the name of a folder with files that are about to be moved into a run
MIN_ROOM = 1e6  # bytes that every run needs


@dataclass(frozen=True)
class RunRecord:
    """A finished run: its folder and the content of `run.json`."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.manifest["settings"]["task"])

    @cached_property
    def settings(self) -> Settings:
        """The settings of the training. Raises UsageError for a setting that is unknown, as in a run of a later version."""
        return Settings.from_dict(self.manifest["settings"])

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the outputs, as labels are read: without blanks at the ends, which class folders of earlier versions kept."""
        names: list[str] = self.manifest["classes"]
        stripped = [name.strip() or name for name in names]
        return stripped if len(set(stripped)) == len(set(names)) else names

    @property
    def temperature(self) -> float:
        """Divisor of the logits in the exports; 1 for runs of versions without calibration."""
        return float(self.manifest.get("temperature", 1.0))

    @property
    def is_pulled(self) -> bool:
        """Whether the run comes from the hub, without the list of its images and its predictions."""
        return bool(self.manifest.get("hub"))

    @property
    def strategy(self) -> str:
        """The strategy, such as "partial" or "depth 4"; BY_HAND for a Learner that was fitted by hand."""
        return BY_HAND if self.manifest.get("by_hand") else describe_strategy(self.manifest["settings"])


def require_images(run: RunRecord, hint: str) -> None:
    """Raise DataError, with a hint, for a run from the hub: it has no list of its images."""
    if run.is_pulled:
        origin = run.manifest["hub"]
        name = f"{HUB_SCHEME}{origin['repository']}" if run.id == origin["revision"] else run.id  # in the cache of the hub's client, the folder is the revision
        raise DataError(f"the run {name} was pulled from the hub, and has no images", hint)


def refer_to(run: RunRecord) -> str:
    """Return a word for a command line that names a run, without --out: its id, or its folder if the id does not lead to it."""
    try:
        found = find(run.id, Settings.out).folder.samefile(run.folder)
    except (RunError, OSError):
        found = False
    return shlex.quote(run.id if found else str(run.folder))


def new_id(strategy: str, arch: str) -> str:
    """Return a run id that sorts by time: `20261122-104530-full-resnet50`."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{strategy.replace(' ', '-')}-{arch.replace('/', '_')}"


def check_writable(out: str, task: str, name: str) -> None:
    """Check before a training that its run can be written. Raises RunError or UsageError."""
    folder = Path(out) / task
    if name and (folder / name).exists():
        raise UsageError(f"a run named '{name}' exists already in {folder}", "Choose another --name; runs are never overwritten")
    existing = next((path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()), folder)
    with convert_os_errors(out):
        check_room(out, MIN_ROOM)
        with tempfile.TemporaryFile(dir=existing):
            pass


def check_room(out: str, needed: float) -> None:
    """Raise RunError if the disk of a folder has less room than `needed` bytes."""
    free = system.free_disk_gib(out) * 2**30
    if free < needed:
        raise RunError(f"{free / 1e6:,.0f} MB are free in {out}, and about {needed / 1e6:,.0f} MB are needed", "Free some space, or name a folder with --out")


def read_metrics(folder: Path, split: str = "valid") -> dict[str, Any]:
    """Return the content of `metrics.json`, or of `metrics_<split>.json`. Raises OSError or ValueError."""
    metrics: dict[str, Any] = json.loads((folder / name_split_file(METRICS_FILE, split)).read_text(encoding="utf-8"))
    if not isinstance(metrics, dict):
        raise ValueError(f"{folder / name_split_file(METRICS_FILE, split)} holds no JSON object")
    calibration = metrics.get("calibration") or {}
    if "promises" in calibration:  # the name until November 2026
        calibration["thresholds"] = calibration.pop("promises")
    return metrics


def check_split(split: str, choices: tuple[str, ...] = EVALUATED) -> None:
    """Raise UsageError if `split` is not one of the choices."""
    if split not in choices:
        raise UsageError(f"--split '{split}' is not one of: {', '.join(choices)}", suggest_name(str(split), choices))


@contextmanager
def create_run(out: str, task: str, run_id: str, latest: bool = True) -> Iterator[tuple[Path, list[Path]]]:
    """Create a run in a temporary folder, renamed at the end of the block. With `latest` it becomes the latest run of the task.

    Yields the temporary folder, and a list to which the final folder is added at the end. If the id is taken, "-2", "-3"... is added. Raises
    RunError.
    """
    parent = Path(out) / task
    published: list[Path] = []
    with convert_os_errors(out):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{run_id}.", suffix=".partial", dir=parent))
        set_permissions(temporary, 0o755)
        try:
            yield temporary, published
            published.append(move_to_free_name(temporary, parent, run_id))
            if latest:
                write_text_atomic(parent / LATEST, published[0].name + "\n")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def find(reference: str, out: str = "exports", verified: bool = False) -> RunRecord:
    """Find a run by its folder, by the folder or name of its task (the latest run), or by run id; with `verified` check its files.

    Raises RunError.
    """
    run = _find(reference, out)
    if verified:
        verify(run)
    return run


def _find(reference: str, out: str) -> RunRecord:
    path = Path(os.path.expanduser(reference))  # unlike that of Path, no error for an unknown user
    for folder in (path, Path(out) / reference):
        if (folder / MANIFEST).is_file():
            return read_run(folder)
        if (folder / LATEST).is_file():
            return read_run(_read_latest(folder))
        if folder.is_dir() and (inner := sorted(str(path.parent) for path in folder.glob(f"*/{MANIFEST}"))):
            raise RunError(f"{folder} has no file '{LATEST}', which names its latest run", f"Give one of its runs: {', '.join(inner[-SHOWN_RUNS:])}")
    matches = [run for run in list_run_folders(out) if run.name == reference]
    if len(matches) > 1:
        raise RunError(f"{len(matches)} runs are named '{reference}': {', '.join(map(str, matches))}", "Give the folder of one")
    if matches:
        return read_run(matches[0])
    raise _not_found_error(reference, out)


def _read_latest(folder: Path) -> Path:
    """Return the folder of the latest run of a task. Raises RunError if the file names no run."""
    name = (folder / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    if Path(name).name != name or not (folder / name / MANIFEST).is_file():
        raise RunError(f"{folder / LATEST} names '{make_printable(name)}', which is no run", "Give a run id; list the runs with: tlfast runs")
    return folder / name


def read_run(folder: Path) -> RunRecord:
    """Read the manifest of a run. Raises RunError if it is missing or damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        check_manifest(manifest)
    except RecursionError:
        raise RunError(f"{folder / MANIFEST} is damaged (too deeply nested)", "Train again; this run cannot be used") from None
    except OSError as error:
        raise RunError(f"{folder} is not a run: {MANIFEST}: {error.strerror}", "List the runs with: tlfast runs") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / MANIFEST} is damaged ({error})", "Train again; this run cannot be used") from None
    return RunRecord(folder, manifest)


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `run.json` with the SHA-256 of all files of the run, and its own SHA-256 beside it. Call it after all files are written."""
    write_sealed(folder, {**manifest, "files": compute_checksums(folder)})


def add_files(run: RunRecord, sources: Sequence[Path], facts: dict[str, Any]) -> RunRecord:
    """Move new files into a run under their names, all or none; describe each under `exports` in `run.json`, and seal the run again.

    Raises UsageError if a file of such a name exists, RunError if the run cannot be written.
    """
    names = [source.name for source in sources]
    with _changed(run) as current, ExitStack() as undo:
        for source in sources:
            _add_file(current, source)
            undo.callback((run.folder / source.name).unlink)
        changed = _update_seal(current, {"exports": {**current.manifest.get("exports", {}), **dict.fromkeys(names, facts)}}, *names)
        undo.pop_all()
    return changed


def _add_file(run: RunRecord, source: Path) -> None:
    target = run.folder / source.name
    try:
        move_file(source, target)
    except FileExistsError:
        # An export that was killed before it changed run.json has left the same file.
        is_leftover = source.name not in run.manifest.get("files", {}) and hash_file(target) == hash_file(source)
        if not is_leftover:
            raise UsageError(f"{target} exists already", "Move it away first; files are never overwritten") from None
        source.unlink()


def record_test_use(run: RunRecord, command: str, figures: dict[str, Any], write: Callable[[Path], object] = lambda folder: None) -> RunRecord:
    """Record a use of the test split in `run.json`: time, command, figures. `write` writes files into a folder, which are moved into the run.

    Raises RunError.
    """
    look = {"when": datetime.now(timezone.utc).isoformat(timespec="seconds"), "command": command, **figures}
    with _changed(run) as current, tempfile.TemporaryDirectory(dir=run.folder, prefix=SCRATCH) as scratch:
        write(Path(scratch))
        names, files = os.listdir(scratch), current.manifest.get("files", {})
        changes = {"test_looks": [*current.manifest.get("test_looks", []), look]}
        if not files.keys().isdisjoint(names):  # while files are replaced, run.json lists neither the former nor the new ones
            kept = {name: digest for name, digest in files.items() if name not in names}
            write_sealed(run.folder, {**current.manifest, **changes, "files": kept})
        for name in names:
            os.replace(Path(scratch) / name, run.folder / name)
        return _update_seal(current, changes, *names)


@contextmanager
def _changed(run: RunRecord) -> Iterator[RunRecord]:
    """Lock a run for a change, and yield it as it is now: another process may have changed it. Raises RunError."""
    hint = "Copy the folder of the run to a place that can be written, and give its path"
    with convert_os_errors(run.folder, hint=hint), lock_folder(run.folder, with_file=True):
        for leftover in run.folder.glob(f"{SCRATCH}*") if os.name == "posix" else ():  # of a command that was killed; on Windows nothing is locked
            shutil.rmtree(leftover, ignore_errors=True)
        yield read_run(run.folder)


def _update_seal(run: RunRecord, changes: dict[str, Any], *names: str) -> RunRecord:
    """Update the manifest and the SHA-256 of the files `names`."""
    files = {**(run.manifest.get("files") or compute_checksums(run.folder)), **{name: hash_file(run.folder / name) for name in names}}
    manifest = {**run.manifest, **changes, "files": files}
    write_sealed(run.folder, manifest)
    return RunRecord(run.folder, manifest)


def verify(run: RunRecord, patterns: Sequence[str] = ("*",)) -> None:
    """Compare each file of a run that matches a pattern with its SHA-256 in `run.json`. Raises RunError with the name of the first file that differs.

    Files that `tlfast export` has added may be missing. Runs of early versions have no checksums and pass.
    """
    if not run.manifest.get("files"):
        return
    path = run.folder
    try:
        with lock_folder(path, shared=True, with_file=True):  # no other process is changing it
            compare_checksums(path, read_run(path).manifest, patterns)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror})", UNVERIFIED) from None


def list_run_folders(out: str, task: str = "") -> list[Path]:
    """Return the folders of all finished runs, or those of one task, sorted by task and run id."""
    folders = [manifest.parent for manifest in Path(out).glob(f"*/*/{MANIFEST}")]
    return sorted(folder for folder in folders if not folder.name.startswith(".") and task in ("", folder.parent.name))


def list_runs(out: str, task: str = "", on_event: OnEvent = ignore_event) -> list[dict[str, Any]]:
    """Return every finished run, oldest first, with: run, task, strategy, arch, accuracy, macro_f1, created, folder.

    Damaged runs are left out, and a note is sent for each. Raises RunError if `task` is given and has no run.
    """
    rows = []
    if not Path(out).is_dir():
        on_event(Note("runs", f"there is no folder {out}"))
    for folder in list_run_folders(out, task):
        try:
            rows.append(_list_run(folder))
        except (RunError, OSError, ValueError, KeyError, TypeError) as error:
            on_event(Note("runs", f"left out: {error.message if isinstance(error, RunError) else f'{folder} is damaged ({first_line(error)})'}"))
    if task and not rows:
        raise _not_found_error(task, out)
    return sorted(rows, key=lambda row: row["created"])


def _list_run(folder: Path) -> dict[str, Any]:
    """Return the row of a run for `list_runs`. Raises RunError, OSError, ValueError, KeyError or TypeError for a damaged one."""
    run = read_run(folder)
    values = run.manifest["settings"]
    chosen = {"task": values["task"], "strategy": run.strategy, "arch": values["arch"]}
    scores = run.manifest.get("scores") or _read_scores(folder)
    return {"run": run.id, **chosen, **{name: scores[name] for name in ("accuracy", "macro_f1")}, "created": run.manifest["created"], "folder": str(folder)}


def _read_scores(folder: Path) -> dict[str, float]:
    """Return the scores of a run of an earlier version, whose manifest has none. With many classes its metrics are a large file."""
    metrics = read_metrics(folder)
    return {"accuracy": metrics["accuracy"], "macro_f1": metrics["macro"]["f1"]}


def _not_found_error(reference: str, out: str) -> RunError:
    if not reference:
        return RunError("the name of the run is empty", "Give a task, a run id or a folder; list the runs with: tlfast runs")
    if reference.startswith(HUB_SCHEME):
        hint = f"Download it first: tlfast pull {reference.removeprefix(HUB_SCHEME)}"
        return RunError(f"{reference} is on the hub, and this command writes into the folder of a run", hint)
    known = sorted({name for folder in list_run_folders(out) for name in (folder.parent.name, folder.name)})
    path = Path(os.path.expanduser(reference))
    if path.name.endswith(UNFINISHED) or any(folder.name == f"{reference}{UNFINISHED}" for folder in Path(out).glob(f"*/*{UNFINISHED}")):
        return RunError(f"{reference} is an unfinished training in {out}", "Resume it first; the command is listed by: tlfast runs --interrupted")
    if all((path / name).is_file() for name in (ONNX_FILE, EXAMPLE_FILE)):
        return RunError(f"{reference} is a bundle of tlfast export, without its run", "predict and serve take it; give this command the folder of the run")
    for folder in (path, *(folder for folder in Path(out).glob("*/*") if folder.name == reference)):
        if (folder / SEAL).is_file() or (folder / ONNX_FILE).is_file():
            network = f"; predict and serve also take {folder / ONNX_FILE}" if (folder / ONNX_FILE).is_file() else ""
            return RunError(f"{folder} has no {MANIFEST}, which every run has", f"Copy the run again from where it was trained{network}")
    if path.suffix.lower() == ".zip" and path.is_file():
        return RunError(f"{reference} is a zip", "Unpack it, and give the folder with run.json or model.onnx")
    if path.is_file():
        return RunError(f"{reference} is not a run", "The run comes first, then the images: tlfast predict RUN IMAGE...; list the runs with: tlfast runs")
    first = f"If it is a task or a folder of images, train first: tlfast train {reference}"
    hint = suggest_name(reference, known) or first + ("; list the runs with: tlfast runs" if known else "")
    return RunError(f"no run '{reference}' in {out}", hint)
