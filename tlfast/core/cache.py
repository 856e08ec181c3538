"""Cache on disk for decoded images, features and results of computations. A folder per entry, named by a hash of what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, UsageError, suggest_name
from .files import set_permissions, wait_for_lock

ENVIRONMENT = "TLFAST_CACHE"
KINDS = {
    "backbones": "names and sizes of timm's backbones",
    "checks": "statistics and near duplicates of images, for `data check`",
    "digests": "hashes of decoded images, for stores of earlier versions",
    "features": "outputs of frozen backbones and lower stages",
    "rooms": "depth and views that fit the disk",
    "stores": "decoded images",
    "timings": "choices of the number format",
    "trainings": "predictions of trainings of `compare`",
    "unpacked": "images of parquet files and WebDataset tars",
    "unfinished": "entries of killed processes",
}
UNFINISHED_KIND = "unfinished"
KEPT_KIND = "unpacked"  # tables and runs name its files, so it is removed only on request
ABOUT = "about.json"  # description of an entry, with the names and sizes of its files
NAME = re.compile(r"[0-9a-f]{24}")  # folder of a complete entry
UNFINISHED = re.compile(r"\.[0-9a-f]{24}\..+")  # folder of an entry that is being written, or whose writer was killed
UNFINISHED_DAYS = 1.0  # an unfinished entry that is older belongs to a killed process
NO_ROOM_HINT = f"Free some space, or name another folder in {ENVIRONMENT}"
STORE_HINT = f"Free some space, name another folder in {ENVIRONMENT}, or use --store ram or --store off"
AVOIDABLE = ("stores", "features", "rooms")  # kinds that are not written with --store ram or off

_replacement: ContextVar[Path | None] = ContextVar("replacement", default=None)


@contextmanager
def use_root(folder: Path) -> Iterator[None]:
    """Within the block, use another folder as the cache: for work that leaves nothing behind."""
    token = _replacement.set(folder)
    try:
        yield
    finally:
        _replacement.reset(token)


def find_root() -> Path:
    """Return the folder of the cache: that of `use_root`, else $TLFAST_CACHE, else `tlfast` in the user's cache folder. Raises UsageError without one."""
    if replacement := _replacement.get():
        return replacement
    if os.environ.get(ENVIRONMENT):
        return Path(os.path.expanduser(os.environ[ENVIRONMENT]))
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "tlfast"
    try:
        return Path.home() / ".cache" / "tlfast"
    except RuntimeError:  # no HOME, and no such user, as in a container
        raise UsageError("there is no home folder for the cache: HOME is not set", f"Name a folder in {ENVIRONMENT}") from None


def check_writable() -> None:
    """Raise UsageError if nothing can be written to the cache."""
    root = find_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UsageError(f"cannot write to the cache {root}: {error.strerror or error}", STORE_HINT) from None


def make_key(**parts: Any) -> str:
    """Return the name of an entry: a hash of everything that it is made from. The parts must be values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def find(kind: str, name: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the description of an entry, or None if it is missing or damaged."""
    folder = find_root() / kind / name
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        complete = all((folder / file).stat().st_size == size for file, size in about["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not complete:
        return None
    with suppress(OSError):
        os.utime(folder / ABOUT)  # the time of the last use; many file systems do not record it
    return folder, about


@contextmanager
def write_entry(kind: str, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write an entry. Yields a temporary folder for its files and a dict for its description; the folder is renamed at the end of the block.

    If another process has written the same entry in the meantime, that one stays: both have the same content.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind} is not declared in KINDS")
    parent = find_root() / kind
    parent.mkdir(parents=True, exist_ok=True)
    temporary = _make_folder(parent, name)
    about: dict[str, Any] = {}
    try:
        yield temporary, about
        about["files"] = {path.name: path.stat().st_size for path in temporary.iterdir()}
        (temporary / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        set_permissions(temporary, stat.S_IMODE(parent.stat().st_mode) & 0o777)  # mkdtemp makes folders private, and a cache can have several users
        _place(temporary, kind, name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folder(parent: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))


def _place(temporary: Path, kind: str, name: str) -> None:
    """Rename a complete entry to its place, unless there is one. A damaged one is moved away before, as another process may put a complete one there."""
    parent = temporary.parent
    with suppress(OSError):
        temporary.rename(parent / name)
        return
    if find(kind, name):
        return
    with suppress(OSError):
        aside = _make_folder(parent, name)
        try:
            (parent / name).rename(aside / name)
            temporary.rename(parent / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def get_or_create(kind: str, name: str, fill: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the description of an entry. If it is missing, `fill` writes its files and returns its description.

    Raises DataError if the entry cannot be written, or belongs to another user and cannot be read.
    """
    entry, hint = find(kind, name), STORE_HINT if kind in AVOIDABLE else NO_ROOM_HINT
    if not entry:
        _refuse_unreadable(find_root() / kind / name)
        try:
            with _lock_entry(kind, name):
                entry = find(kind, name)  # another process may have written it
                if not entry:
                    with write_entry(kind, name) as (folder, about):
                        about.update(fill(folder))
        except OSError as error:
            raise DataError(f"cannot write {kind} to the cache {find_root()}: {error.strerror or error}", hint) from error
        entry = find(kind, name)
    if not entry:
        raise DataError(f"the {kind} just written to the cache {find_root()} are missing", hint)
    return entry


def _refuse_unreadable(folder: Path) -> None:
    """Raise DataError if an entry is there that this user must not read. No other can be written in its place."""
    if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder} cannot be read: Permission denied", f"Change its permissions, remove it, or name another folder in {ENVIRONMENT}")


_waits = False  # of `wait_for_others`


def wait_for_others() -> None:
    """Let this process wait while another one computes the same entry, as tasks of a cluster do. Otherwise both compute it, and one result is kept."""
    global _waits
    _waits = True


@contextmanager
def _lock_entry(kind: str, name: str) -> Iterator[None]:
    """Lock the making of an entry, if this process waits for others."""
    if not _waits:
        yield
        return
    lock = find_root() / kind / f".{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(lock):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def get_or_compute(kind: str, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a cached result, or the result of `compute`, which is added to the cache if the disk allows it."""
    entry = find(kind, name)
    if entry:
        return entry[1]
    result = compute()
    with suppress(OSError), write_entry(kind, name) as (_, about):
        about.update(result)
    return result


@dataclass(frozen=True)
class CacheEntry:
    """One entry of the cache: kind, folder, size in bytes, and time of the last use."""

    kind: str
    folder: Path
    size: int
    used: float  # seconds since 1970


def list_entries() -> list[CacheEntry]:
    """Return all entries, the longest unused first. Folders left by a killed process have the kind "unfinished".

    Folders with other names are ignored: the cache may share its folder with files of the user.
    """
    entries = [entry for folder in find_root().glob("*/*") if (entry := _read_entry(folder))]
    return sorted(entries, key=lambda entry: entry.used)


def _read_entry(folder: Path) -> CacheEntry | None:
    complete, unfinished = NAME.fullmatch(folder.name), UNFINISHED.fullmatch(folder.name)
    try:
        if not folder.is_dir() or folder.is_symlink() or not ((complete and (folder / ABOUT).is_file()) or unfinished):
            return None
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        used = max((max(each.st_mtime, each.st_atime) for each in files), default=folder.stat().st_mtime)
    except OSError:  # another process has completed or removed it, or it belongs to another user
        return None
    return CacheEntry(UNFINISHED_KIND if unfinished else folder.parent.name, folder, sum(each.st_size for each in files), used)


def clear(kind: str | None = None, days: float = 0.0) -> list[CacheEntry]:
    """Remove the entries of a kind (None: of all kinds but `unpacked`) that were not used for `days` days. Returns the removed entries.

    Unfinished entries stay for a day, because a running process may be writing them. Raises UsageError for an unknown kind.
    """
    now, removed, entries = time.time(), [], list_entries()
    kinds = sorted({*KINDS, *(entry.kind for entry in entries)})  # earlier versions had others
    if kind is not None and kind not in kinds:
        raise UsageError(f"unknown kind of cache entries '{kind}'", suggest_name(kind, kinds) or f"Use one of: {', '.join(kinds)}")
    for entry in entries:
        least = max(days, UNFINISHED_DAYS) if entry.kind == UNFINISHED_KIND else days
        if (entry.kind == kind or (kind is None and entry.kind != KEPT_KIND)) and now - entry.used >= least * 86_400:
            shutil.rmtree(entry.folder, ignore_errors=True)
            removed += [] if entry.folder.exists() else [entry]
    return removed
