"""Where a run's images are: a path of the user's own, a folder of `data/`, or an import or download that becomes one.

A folder of `data/` is filled under a temporary name beside it and renamed: it is whole or absent, and never written over.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import DataError, UsageError
from ..core.events import Note, OnEvent, Progress, ignore_event
from .discovery import inner_path, is_outside
from .download import CHUNK, convert_errors, download
from .hub import download_hub_dataset
from .images import DAMAGED_ZIP, is_image_name
from .task import Source, Task

DOWNLOADS = ".downloads"  # below the data folder; kept there, so that a broken download goes on where it stopped

MAX_UNPACKED = 200_000_000_000  # bytes
MAX_RATIO = 1000  # of unpacked to packed size; photographs hardly shrink at all
RATIO_COUNTS_FROM = 1_000_000_000  # bytes; below, a high ratio harms nobody


def locate(task: Task, data: str, root: str = "data") -> Path:
    """Return where the images are: `data` if given, else `root/<task>`, drawn now where the task can draw its images.

    Raises DataError where there is nothing.
    """
    if data:
        return _existing(data, DataError, "--data takes a folder of class folders, a zip of one, or a CSV file")
    target = _target(task, root)
    if _taken(target):
        return target
    if task.make is None:
        raise DataError(f"no images of task '{task.name}' in {Path(root) / task.name}", _ways_in(task))
    try:
        with _filling(target) as staging:
            task.make(staging)
    except DataError:
        if not _taken(target):  # else another process was faster, and its folder is as good as ours
            raise
    return target


def import_data(task: Task, source: str, root: str = "data", on_event: OnEvent = ignore_event) -> Path:
    """Bring a folder, zip or CSV file into `root/<task>` and return that; the source is only read.

    Raises UsageError where there is no such source or the task takes none, DataError where it cannot be used or `root/<task>` exists.
    """
    if task.arrange is None:
        raise UsageError(f"task '{task.name}' takes no import", "Train on images of your own where they lie: --data PATH")
    path = _existing(source, UsageError, "Give the folder, zip or CSV file that you have")
    target = _target(task, root)
    _refuse_taken(target)
    with _filling(target) as staging:
        _arrange(task, path, staging, target, on_event)
    return target


def get_data(task: Task, root: str = "data", on_event: OnEvent = ignore_event) -> Path:
    """Download the images into `root/<task>` from the first source that has them, and return that folder.

    Raises UsageError where the task has no source, DataError where `root/<task>` exists or every source fails; it names each reason.
    """
    if not task.sources:
        hint = f"They are made on first use: tlfast train {task.name}" if task.make else "Train on images of your own: --data PATH"
        raise UsageError(f"task '{task.name}' has nothing to download", hint)
    target = _target(task, root)
    _refuse_taken(target)
    kept = target.parent / DOWNLOADS / task.name
    failures = []
    for source in task.sources:
        try:
            with _filling(target) as staging:
                _bring(task, source, kept, staging, target, on_event)
            on_event(Note("done", f"what was downloaded is kept in {kept}; it may be deleted"))
            return target
        except DataError as error:
            failures.append(f"{source.title}: {error.message}")
    hint = f"{task.by_hand}, then: tlfast data import {task.name} PATH"
    raise DataError(f"the images of task '{task.name}' cannot be downloaded: {'; '.join(failures)}", hint)


# Folders that are whole or absent


def _target(task: Task, root: str) -> Path:
    return Path(os.path.expanduser(root)).resolve() / task.name


def _existing(name: str, kind: type[DataError] | type[UsageError], hint: str) -> Path:
    path = Path(os.path.expanduser(name))
    if not os.path.exists(path):  # unlike Path.exists, false for names that no system can hold
        raise kind(f"{name}: no such folder or file", hint)
    return path.resolve()


def _taken(target: Path) -> bool:
    """Tell whether something is there; an empty folder is nothing."""
    return os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir()))


def _refuse_taken(target: Path) -> None:
    if _taken(target):
        raise DataError(f"{target} exists already", "It is used as it is; to have it anew, rename or remove it first")


def _ways_in(task: Task) -> str:
    ways = [f"download them: tlfast data get {task.name}"] if task.sources else []
    ways += [f"import what you have: tlfast data import {task.name} SRC"] if task.arrange else []
    return "; or ".join([*ways, "use a folder, zip or CSV file where it lies: --data PATH"])


@contextmanager
def _filling(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when the block ends well, and is gone when not.

    Raises DataError where that cannot be written, or where `target` has come to be meanwhile.
    """
    with convert_errors(target), _scratch(target, "partial") as staging:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders private
        try:
            os.rename(staging, target)  # replaces an empty folder and nothing else
        except OSError:
            _refuse_taken(target)
            raise


@contextmanager
def _scratch(target: Path, suffix: str) -> Iterator[Path]:
    """Give an empty folder beside `target`, removed afterwards: the same disk, where /tmp may be small."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{suffix}", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# From a folder, zip or CSV file


def _arrange(task: Task, source: Path, staging: Path, target: Path, on_event: OnEvent) -> None:
    """Have the task lay `source` out in `staging`. Raises DataError or UsageError."""
    assert task.arrange  # import_data has seen to it; a source of files without is a mistake in the task
    if source.is_dir() or source.suffix.lower() == ".csv":
        task.arrange(source, staging, source.parent)
    elif source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        with _scratch(target, "unpacked") as scratch:
            unpacked = scratch / source.stem  # the name that the task's errors show
            _unpack(source, unpacked, on_event)
            task.arrange(unpacked, staging, source.parent)
    else:
        raise UsageError(f"{source} is not a folder, a .zip or a .csv", "Unpack other archives yourself, and import the folder")
    if not any(is_image_name(name) for _, _, names in os.walk(staging) for name in names):
        raise DataError(f"no images in {source}", _ways_in(task))


def _unpack(archive: Path, target: Path, on_event: OnEvent) -> None:
    """Unpack a zip into `target`. Raises DataError where it is damaged or a member is unsafe: the latter before anything is written."""
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as file:
            _check_members(archive, file.infolist())
            members = [member for member in file.infolist() if not member.is_dir() and not member.filename.startswith("__MACOSX/")]
            for done, member in enumerate(members, start=1):
                _extract(file, member, target)
                if done % 64 == 0 or done == len(members):
                    on_event(Progress(f"unpacking {archive.name}", done, len(members)))
    except DAMAGED_ZIP as error:
        raise DataError(f"{archive} is not a zip that can be unpacked ({error})", "Check it with: python -m zipfile -t FILE") from None


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        problem = _problem(member)
        if problem:
            raise DataError(f"{archive.name}: '{member.filename}' {problem}; nothing was imported", "If you trust it, unpack it yourself and import the folder")
    # The archive's own size: members that share their bytes, as in some bombs, would make the sum of packed sizes large.
    unpacked, packed = sum(member.file_size for member in members), archive.stat().st_size
    if unpacked > MAX_UNPACKED or (unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * packed):
        raise DataError(f"{archive.name}: {packed:,} bytes would become {unpacked:,}; nothing was imported", "This is no archive of photographs")


def _problem(member: zipfile.ZipInfo) -> str:
    if problem := is_outside(member.filename):
        return problem
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    return "is encrypted" if member.flag_bits & 1 else ""


def _extract(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    path = target / inner_path(member.filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as inner, path.open("wb") as outer:
        shutil.copyfileobj(inner, outer, CHUNK)


# From the network


def _bring(task: Task, source: Source, kept: Path, staging: Path, target: Path, on_event: OnEvent) -> None:
    """Fill `staging` from one source. Raises DataError."""
    if source.hub_dataset:
        download_hub_dataset(task, source.hub_dataset, kept / source.hub_dataset.replace("/", "--"), staging, on_event)
        return
    for number, (url, name) in enumerate(source.files):
        download(url, kept / name, source.size if number == 0 else None, on_event)
    _arrange(task, kept / source.files[0][1], staging, target, on_event)
