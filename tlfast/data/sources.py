"""The folder of the images of a task: a path of the user, or `data/<task>`, which is filled by an import, a download or the task.

`data/<task>` is written under a temporary name and renamed when complete. An existing folder is never overwritten.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from ..core import DataError, Note, OnEvent, Settings, UsageError, ignore_event
from ..core.files import is_locked, lock_file, lock_folder, set_permissions
from .archives import archive_stem, is_archive, is_archive_name, unpack
from .discovery import is_http_url
from .download import convert_errors, download, hide_credentials
from .hub import download_hub_dataset, fetch_dataset, is_hub_dataset
from .images import is_image_name
from .split import has_splits
from .table import ImageTable, load_table, read_rows, unify_labels
from .task import Source, Task
from .types import Row

EVALUATE_ALL = "tlfast evaluate RUN --split all --data PATH"
LOCK = ".lock"  # locked while a process downloads to its folder
LEFT_SECONDS = 60  # without a change, after which an unlocked temporary folder is that of a killed process
DOWNLOADS = ".downloads"  # sub-folder of the data folder; files stay there, so that a download can be continued


def locate(task: Task, data: str, root: str = "data") -> Path:
    """Return the path of the images: `data` if given, else `root/<task>`, which is created if the task can generate its images.

    Raises DataError if there are no images.
    """
    if data:
        return _existing(data, DataError, "Give --data a folder of class folders, a zip of one, or a CSV or parquet file")
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


def open_data(task: Task, settings: Settings, on_event: OnEvent = ignore_event, known: Mapping[str, str] = MappingProxyType({})) -> ImageTable:
    """Return the image table for the settings of the data: a path, a data set of the hub, or the folder of the task.

    `known` are the splits of images by path, as `load_table` takes them. Raises UsageError or DataError.
    """
    return load_table(task, settings, _find_root(task, settings, on_event), on_event, known)


def open_with_splits(task: Task, settings: Settings, find_known: Callable[[str], Mapping[str, str]], on_event: OnEvent = ignore_event) -> ImageTable:
    """Return the image table as `open_data` does. If other splits than those of a training would be drawn, as after images were added, use the latter.

    `find_known` returns the splits of the training by absolute path, for the source of the table.
    """
    table = open_data(task, settings, on_event)
    known = find_known(table.source)
    if has_splits(table.rows, known):
        return table
    try:
        return open_data(task, settings, on_event, known)
    except DataError as error:  # such as an empty train split
        raise DataError(f"{error.message}, with the splits of the training", f"To evaluate all images: {EVALUATE_ALL}") from None


def read_labelled(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> list[Row]:
    """Return all labelled images of `settings.data`, of any number of classes and without a division into splits. Raises UsageError or DataError."""
    reading = read_rows(task, settings, _find_root(task, settings, on_event), on_event)
    rows, notes = unify_labels(reading.rows)
    for note in [*reading.notes, *notes]:
        on_event(Note("data", note))
    return rows


def _find_root(task: Task, settings: Settings, on_event: OnEvent) -> Path:
    return fetch_dataset(settings.data, on_event) if is_hub_dataset(settings.data) else locate(task, settings.data)


def import_data(task: Task, source: str, root: str = "data", on_event: OnEvent = ignore_event) -> Path:
    """Convert a folder, zip, tarball or CSV file to the folder `root/<task>`. Returns that folder. The source does not change.

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


def get_data(task: Task, root: str = "data", on_event: OnEvent = ignore_event, address: str = "") -> Path:
    """Download the images to the folder `root/<task>` from the first source that works, or from the given address of a copy. Returns that folder.

    Raises UsageError if the task has no source or the address is not that of an archive, DataError if `root/<task>` exists or all sources fail, with
    the reason of each.
    """
    if not task.sources:
        hint = f"Its images are generated on first use: tlfast train {task.argument}" if task.make else "Train on your images: --data PATH"
        raise UsageError(f"task '{task.name}' has no download", hint)
    target = _target(task, root)
    _refuse_taken(target)
    downloads = target.parent / DOWNLOADS / task.name
    with convert_errors(downloads):
        downloads.mkdir(parents=True, exist_ok=True)
    busy = DataError(f"another process is downloading the images of task '{task.name}' to {target}", "Wait until it has finished")
    with lock_file(downloads / LOCK, busy):
        return _get_from_sources(task, [_source_at(address)] if address else list(task.sources), downloads, target, on_event)


def _get_from_sources(task: Task, sources: Sequence[Source], downloads: Path, target: Path, on_event: OnEvent) -> Path:
    """Fill the folder `target` from the first source that works; return it. Raises DataError with the reason of each failure."""
    failures, hints = [], []
    for source in sources:
        try:
            with _new_folder(target) as staging:
                _fill_from_source(task, source, downloads, staging, target, on_event)
            on_event(Note("done", f"the downloaded files are in {downloads} and may be deleted"))
            return target
        except (DataError, UsageError) as error:  # UsageError: the file is not an archive
            failures.append(f"{source.title}: {error.message}")
            hints += [error.hint] if source.hub_dataset and error.hint else []  # such as to set a token
    hints += [f"{task.by_hand}, then: tlfast data import {task.argument} PATH"] if task.by_hand else []
    hints += [] if hints else [f"If you have the images: tlfast data import {task.argument} PATH"]
    raise DataError(f"the images of task '{task.name}' cannot be downloaded: {'; '.join(failures)}", ". ".join(dict.fromkeys(hints)))


def _source_at(address: str) -> Source:
    """Return the source for the address of an archive. Raises UsageError."""
    try:
        name = PurePosixPath(unquote(urlsplit(address).path)).name
    except ValueError:  # such as "http://[::1/fer.zip"
        name = ""
    if not is_http_url(address) or not is_archive_name(name):
        raise UsageError(f"--from {hide_credentials(address)}: not an http(s) address of a zip or tarball", "For a file: tlfast data import TASK FILE")
    folder = hashlib.sha256(address.encode()).hexdigest()[:8]  # a download of the same name from another address is another file
    return Source(hide_credentials(address), files=((address, f"{folder}/{name}"),))


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
    options = [f"download them: tlfast data get {task.argument}"] if task.sources else []
    options += [f"import existing files: tlfast data import {task.argument} SRC"] if task.arrange else []
    return "; or ".join([*options, "use a folder, zip, CSV or parquet file in place: --data PATH"])


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `target` at the end of the block, or removed after an exception.

    Raises DataError if the folder cannot be written, or if `target` exists at the end.
    """
    with convert_errors(target), _temporary_folder(target, "partial") as staging:
        yield staging
        set_permissions(staging, 0o755)  # mkdtemp makes folders private
        try:
            os.rename(staging, target)  # replaces an empty folder and nothing else
        except OSError:
            _refuse_taken(target)
            raise


@contextmanager
def _temporary_folder(target: Path, suffix: str) -> Iterator[Path]:
    """Yield an empty folder next to `target` (on the same disk), and remove it at the end of the block, with those of killed processes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target, suffix)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{suffix}", dir=target.parent))
    try:
        with lock_folder(folder):  # without locks, `is_locked` keeps all folders
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(target: Path, suffix: str) -> None:
    """Remove the temporary folders of killed processes: those without a lock. New ones stay, because a process may be about to lock them."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.????????.{suffix}"):
        with suppress(FileNotFoundError):  # another process has removed it
            if time.time() - folder.stat().st_mtime > LEFT_SECONDS and not is_locked(folder):
                shutil.rmtree(folder, ignore_errors=True)


# From a folder, archive or CSV file


def _arrange(task: Task, source: Path, staging: Path, target: Path, on_event: OnEvent) -> int:
    """Call the `arrange` of the task for a folder, CSV file or unpacked archive; return the number of images. Raises DataError or UsageError."""
    assert task.arrange  # checked by import_data; a task with files to download must define it
    if source.is_dir() or source.suffix.lower() == ".csv":
        task.arrange(source, staging, source.parent)
    elif is_archive(source):
        with _temporary_folder(target, "unpacked") as scratch:
            unpacked = scratch / archive_stem(source)  # the name in error messages of the task
            unpack(source, unpacked, on_event)
            task.arrange(unpacked, staging, source.parent)
    else:
        raise UsageError(f"{source} is not a folder, a .zip, a .tar.gz or a .csv", "Unpack other types of archives, and import the folder")
    count = sum(is_image_name(name) for _, _, names in os.walk(staging) for name in names)
    if not count:
        raise DataError(f"no images in {source}", _describe_options(task))
    return count


# From the network


def _fill_from_source(task: Task, source: Source, downloads: Path, staging: Path, target: Path, on_event: OnEvent) -> None:
    """Download one source to `downloads` and write its images to `staging`. Raises DataError."""
    if source.hub_dataset:
        download_hub_dataset(task, source.hub_dataset, downloads / source.hub_dataset.replace("/", "--"), staging, on_event)
        return
    if earlier := sum((downloads / name).exists() for _, name in source.files):
        on_event(Note("download", f"{earlier} of {len(source.files)} files are those of an earlier download; delete {downloads} to download them again"))
    for number, (url, name) in enumerate(source.files):
        download(url, downloads / name, source.size if number == 0 else None, on_event)
    archive = downloads / source.files[0][1]
    count = _arrange(task, archive, staging, target, on_event)
    if source.images not in (None, count):
        raise DataError(f"{archive.name} has {count:,} images, not {source.images:,}; delete {archive} to download it again")
