"""What is made once and used by many runs, such as decoded images and a backbone's features: folders named by what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError

ENVIRONMENT = "TLFAST_CACHE"
ABOUT = "about.json"
NAME, UNFINISHED = re.compile(r"[0-9a-f]{24}"), re.compile(r"\.[0-9a-f]{24}\..+")  # of a folder that is whole; of one that is being filled
UNFINISHED_DAYS = 1.0
ELSEWHERE = f"Free some space, name another folder in {ENVIRONMENT}, or use --store ram or --store off"


def find_root() -> Path:
    """Return the folder of all that is kept: $TLFAST_CACHE, else `tlfast` in the user's cache folder."""
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlfast"


def make_key(**parts: Any) -> str:
    """Return a name for what is made from `parts` (anything that JSON can hold) and from nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def find(kind: str, name: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder kept under a name and what is said about it, or None where there is none or it is damaged."""
    folder = find_root() / kind / name
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        whole = all((folder / file).stat().st_size == size for file, size in about["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (folder, about) if whole else None


@contextmanager
def write_entry(kind: str, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a temporary folder to fill and a dict to describe it in; when the block ends well, `find` finds both.

    Where another process has kept the same meanwhile, its folder stays: both were made from the same.
    """
    parent = find_root() / kind
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
    about: dict[str, Any] = {}
    try:
        yield temporary, about
        about["files"] = {path.name: path.stat().st_size for path in temporary.iterdir()}
        (temporary / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        if not find(kind, name):
            shutil.rmtree(parent / name, ignore_errors=True)  # damaged, or there is none
            with suppress(OSError):
                temporary.rename(parent / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def get_or_create(kind: str, name: str, fill: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """Return what is kept under a name; where there is none yet, let `fill` write it into a folder and say what it is. Raises DataError."""
    found = find(kind, name)
    if not found:
        try:
            with write_entry(kind, name) as (folder, about):
                about.update(fill(folder))
        except OSError as error:
            raise DataError(f"cannot keep {kind} in {find_root()}: {error.strerror or error}", ELSEWHERE) from error
        found = find(kind, name)
    if not found:
        raise DataError(f"the {kind} just written to {find_root()} are gone", ELSEWHERE)
    return found


def get_or_compute(kind: str, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what `make` says, from an earlier time if it was asked before; where nothing can be kept it is asked every time."""
    found = find(kind, name)
    if found:
        return found[1]
    facts = make()
    with suppress(OSError), write_entry(kind, name) as (_, about):
        about.update(facts)
    return facts


@dataclass(frozen=True)
class CacheEntry:
    """One thing that is kept: its kind, its folder, its size in bytes, and when it was made or last found."""

    kind: str
    folder: Path
    size: int
    used: float  # seconds since 1970


def list_entries() -> list[CacheEntry]:
    """Return all that is kept, and what a killed command left unfinished (kind "unfinished"), the longest unused first.

    Only folders that this module names are looked at: the cache may share its place with files of the user's.
    """
    found = [entry for folder in find_root().glob("*/*") if (entry := _read_entry(folder))]
    return sorted(found, key=lambda entry: entry.used)


def _read_entry(folder: Path) -> CacheEntry | None:
    whole, partial = NAME.fullmatch(folder.name), UNFINISHED.fullmatch(folder.name)
    if not folder.is_dir() or folder.is_symlink() or not ((whole and (folder / ABOUT).is_file()) or partial):
        return None
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    used = max((max(stat.st_mtime, stat.st_atime) for stat in files), default=folder.stat().st_mtime)
    return CacheEntry("unfinished" if partial else folder.parent.name, folder, sum(stat.st_size for stat in files), used)


def clear(kind: str = "", days: float = 0.0) -> list[CacheEntry]:
    """Remove what is kept, of one kind if it is given, and not used for so many days; return what was removed.

    What is unfinished is left for a day, for a command may be at work on it.
    """
    now, removed = time.time(), []
    for entry in list_entries():
        least = max(days, UNFINISHED_DAYS) if entry.kind == "unfinished" else days
        if kind in ("", entry.kind) and now - entry.used >= least * 86_400:
            shutil.rmtree(entry.folder, ignore_errors=True)
            removed.append(entry)
    return removed
