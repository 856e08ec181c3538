"""The folder of the images of a task: a path of the user, or `data/<task>`, which is filled by an import, a download or the task.

`data/<task>` is written under a temporary name and renamed when complete. An existing folder is never overwritten.
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

from ..core import DataError, Note, OnEvent, Progress, UsageError, ignore_event
from .discovery import inner_path, is_outside
from .download import CHUNK, convert_errors, download
from .hub import download_hub_dataset
from .images import DAMAGED_ZIP, is_image_name
from .task import Source, Task

DOWNLOADS = ".downloads"  # sub-folder of the data folder; files stay there, so that a download can be continued

TRUST_HINT = "If you trust it, unpack it yourself and import the folder"

MAX_UNPACKED = 200_000_000_000  # bytes
MAX_RATIO = 1000  # largest ratio of unpacked to packed size; that of photographs is near 1
RATIO_COUNTS_FROM = 1_000_000_000  # bytes; smaller archives may have any ratio


def locate(task: Task, data: str, root: str = "data") -> Path:
    """Return the path of the images: `data` if given, else `root/<task>`, which is created if the task can generate its images.

    Raises DataError if there are no images.
    """
    if data:
        return _existing(data, DataError, "Give --data a folder of class folders, a zip of one, or a CSV file")
    target = _target(task, root)
    if _taken(target):
        return target
    if task.make is None:
        raise DataError(f"no images of task '{task.name}' in {Path(root) / task.name}", _describe_options(task))
    try:
        with _new_folder(target) as staging:
            task.make(staging)
    except DataError:
        if not _taken(target):  # else another process has created the same folder
            raise
    return target


def import_data(task: Task, source: str, root: str = "data", on_event: OnEvent = ignore_event) -> Path:
    """Convert a folder, zip or CSV file to the folder `root/<task>`. Returns that folder. The source does not change.

    Raises UsageError if the source does not exist or the task has no import, DataError for unusable data or if `root/<task>` exists.
    """
    if task.arrange is None:
        raise UsageError(f"task '{task.name}' has no import", "Train on your images in place: --data PATH")
    path = _existing(source, UsageError, "Give the path of a folder, zip or CSV file")
    target = _target(task, root)
    _refuse_taken(target)
    with _new_folder(target) as staging:
        _arrange(task, path, staging, target, on_event)
    return target


def get_data(task: Task, root: str = "data", on_event: OnEvent = ignore_event) -> Path:
    """Download the images to the folder `root/<task>` from the first source that works. Returns that folder.

    Raises UsageError if the task has no source, DataError if `root/<task>` exists or all sources fail, with the reason of each.
    """
    if not task.sources:
        hint = f"They are generated on first use: tlfast train {task.name}" if task.make else "Train on your images: --data PATH"
        raise UsageError(f"task '{task.name}' has no download", hint)
    target = _target(task, root)
    _refuse_taken(target)
    downloads = target.parent / DOWNLOADS / task.name
    failures = []
    for source in task.sources:
        try:
            with _new_folder(target) as staging:
                _fill_from_source(task, source, downloads, staging, target, on_event)
            on_event(Note("done", f"the downloaded files are in {downloads} and may be deleted"))
            return target
        except DataError as error:
            failures.append(f"{source.title}: {error.message}")
    hint = f"{task.by_hand}, then: tlfast data import {task.name} PATH"
    raise DataError(f"the images of task '{task.name}' cannot be downloaded: {'; '.join(failures)}", hint)


# Folders that are complete or absent


def _target(task: Task, root: str) -> Path:
    return Path(os.path.expanduser(root)).resolve() / task.name


def _existing(name: str, kind: type[DataError] | type[UsageError], hint: str) -> Path:
    """Return the absolute path of an existing file or folder. Raises `kind` with `hint` otherwise."""
    path = Path(os.path.expanduser(name))
    if not os.path.exists(path):  # unlike Path.exists, false for names that are too long
        raise kind(f"{name}: no such folder or file", hint)
    return path.resolve()


def _taken(target: Path) -> bool:
    """Return whether the path exists and is not an empty folder."""
    return os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir()))


def _refuse_taken(target: Path) -> None:
    if _taken(target):
        raise DataError(f"{target} exists already", "Existing data is not changed; rename or remove the folder first")


def _describe_options(task: Task) -> str:
    """Return a hint with all ways to provide the images of a task."""
    options = [f"download them: tlfast data get {task.name}"] if task.sources else []
    options += [f"import existing files: tlfast data import {task.name} SRC"] if task.arrange else []
    return "; or ".join([*options, "use a folder, zip or CSV file in place: --data PATH"])


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` at the end of the block, or removed after an exception.

    Raises DataError if the folder cannot be written, or if `target` exists at the end.
    """
    with convert_errors(target), _temporary_folder(target, "partial") as staging:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes folders private
        try:
            os.rename(staging, target)  # replaces an empty folder and nothing else
        except OSError:
            _refuse_taken(target)
            raise


@contextmanager
def _temporary_folder(target: Path, suffix: str) -> Iterator[Path]:
    """Yield an empty folder next to `target` (on the same disk), and remove it at the end of the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{suffix}", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# From a folder, zip or CSV file


def _arrange(task: Task, source: Path, staging: Path, target: Path, on_event: OnEvent) -> None:
    """Call the `arrange` of the task for a folder, CSV file or unpacked zip. Raises DataError or UsageError."""
    assert task.arrange  # checked by import_data; a task with files to download must define it
    if source.is_dir() or source.suffix.lower() == ".csv":
        task.arrange(source, staging, source.parent)
    elif source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        with _temporary_folder(target, "unpacked") as scratch:
            unpacked = scratch / source.stem  # the name in error messages of the task
            _unpack(source, unpacked, on_event)
            task.arrange(unpacked, staging, source.parent)
    else:
        raise UsageError(f"{source} is not a folder, a .zip or a .csv", "Unpack other types of archives, and import the folder")
    if not any(is_image_name(name) for _, _, names in os.walk(staging) for name in names):
        raise DataError(f"no images in {source}", _describe_options(task))


def _unpack(archive: Path, target: Path, on_event: OnEvent) -> None:
    """Unpack a zip to `target`. Raises DataError for a damaged zip, and for unsafe members before anything is written."""
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
    """Raise DataError for paths outside the archive, links, encrypted members and zip bombs."""
    for member in members:
        problem = _find_problem(member)
        if problem:
            raise DataError(f"{archive.name}: '{member.filename}' {problem}; nothing was imported", TRUST_HINT)
    # Compare with the size of the file: in some bombs members share bytes, and the sum of packed sizes would be too large.
    unpacked, packed = sum(member.file_size for member in members), archive.stat().st_size
    if unpacked > MAX_UNPACKED or (unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * packed):
        raise DataError(
            f"{archive.name}: {packed:,} bytes would become {unpacked:,}; nothing was imported",
            TRUST_HINT,
        )


def _find_problem(member: zipfile.ZipInfo) -> str:
    """Return why a member is not unpacked, or ""."""
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


def _fill_from_source(task: Task, source: Source, downloads: Path, staging: Path, target: Path, on_event: OnEvent) -> None:
    """Download one source to `downloads` and write its images to `staging`. Raises DataError."""
    if source.hub_dataset:
        download_hub_dataset(task, source.hub_dataset, downloads / source.hub_dataset.replace("/", "--"), staging, on_event)
        return
    for number, (url, name) in enumerate(source.files):
        download(url, downloads / name, source.size if number == 0 else None, on_event)
    _arrange(task, downloads / source.files[0][1], staging, target, on_event)
