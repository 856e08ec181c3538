"""Atomic writes, renames without overwriting, and tables as CSV and JSON."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from .errors import RunError

if os.name == "posix":
    import fcntl

MAX_NAMES = 999  # variants of a run id: r, r-2, ... r-999
FOLDER_LOCK = ".lock"  # file of `lock_folder`
RETRY_SECONDS = 0.05  # between two attempts to lock a file
ROW = "\0row"  # stands for a row of a matrix in JSON text


def write_csv(path: Path, rows: Sequence[Any], columns: Sequence[str] = ()) -> None:
    """Write dataclasses of one type, one column per field, see `to_cells`. Without rows, `columns` is the header."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(to_cells(rows[0]) if rows else columns))
        writer.writeheader()
        writer.writerows(map(to_cells, rows))


def to_cells(row: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as cells of a table row.

    An interval becomes two cells, `<field>_low` and `<field>_high`, which are empty if it is None. A dict has no cell.
    """
    cells: dict[str, Any] = {}
    for name, value in vars(row).items():
        if isinstance(value, dict):
            continue  # not a single cell; the JSON file holds it
        if name.endswith("interval"):
            low, high = value or (None, None)
            cells |= {f"{name}_low": low, f"{name}_high": high}
        else:
            cells[name] = value
    return cells


def format_json(value: Any) -> str:
    """Return a value as JSON text with an indent of 1 and a final newline. Each row of a matrix of integers is one line."""
    rows: list[str] = []
    text = json.dumps(_take_rows(value, rows), indent=1, ensure_ascii=False)
    parts = text.split(json.dumps(ROW))
    return "".join(piece for pair in zip_longest(parts, rows, fillvalue="") for piece in pair) + "\n"


def _take_rows(value: Any, rows: list[str]) -> Any:
    """Return a copy of a JSON value with ROW in place of each row of a matrix; add the rows as JSON texts to `rows`.

    With an indent, the encoder of Python needs much time and memory for the cells of a large matrix.
    """
    if isinstance(value, dict):
        return {key: _take_rows(each, rows) for key, each in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if value and all(isinstance(row, list) and row and type(row[0]) is int for row in value):
        rows += map(json.dumps, value)
        return [ROW] * len(value)
    return [_take_rows(each, rows) for each in value]


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with an indent of 1."""
    path.write_text(format_json(value), encoding="utf-8")


def write_atomic(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Write a file atomically: temporary file beside it, fsync, rename. Of several processes that write it at the same time, the last one wins.

    Raises OSError; the temporary file is always removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


@contextmanager
def lock_folder(folder: Path, shared: bool = False, with_file: bool = False) -> Iterator[None]:
    """Lock a folder until the end of the block or of the process; wait while another process has it. Shared locks exclude only the others.

    On NFS, locks of folders hold for one machine, and those of files for all. `with_file` also locks a hidden file in the folder: an exclusive lock
    creates it, and a shared one does without if it is missing. On Windows, and on file systems without locks, nothing is locked. Raises OSError if there
    is no such folder.
    """
    if os.name != "posix":
        yield
        return
    kind, mode = (fcntl.LOCK_SH, os.O_RDONLY) if shared else (fcntl.LOCK_EX, os.O_RDWR | os.O_CREAT)
    with ExitStack() as opened:
        descriptor = os.open(folder, os.O_RDONLY)
        opened.callback(os.close, descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, kind)
        with suppress(OSError):
            if with_file:
                descriptor = os.open(folder / FOLDER_LOCK, mode, 0o666)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, kind)
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process has locked a folder, or may have: on Windows, and where folders cannot be locked."""
    if os.name != "posix":
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def set_permissions(path: Path, mode: int) -> None:
    """Set the permissions of a file or folder; nothing is done on file systems without permissions of their own, such as disks of Windows in WSL."""
    with suppress(OSError):
        path.chmod(mode)


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def lock_open_file(file: IO[Any], taken: Exception, timeout: float = 0.0) -> None:
    """Lock an open file for this process until it is closed. Raises `taken` if another process has it, also after `timeout` seconds.

    On Windows, and on file systems without locks, nothing is locked.
    """
    end = time.monotonic() + timeout
    while not _try_lock(file):
        if time.monotonic() >= end:
            raise taken
        time.sleep(RETRY_SECONDS)


def _try_lock(file: IO[Any], shared: bool = False) -> bool:
    """Lock an open file; return False if another process has it."""
    if os.name == "posix":
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, depending on the system
            return False
        except OSError:  # a file system without locks
            pass
    return True


@contextmanager
def lock_file(path: Path, taken: Exception, timeout: float = 0.0) -> Iterator[None]:
    """Lock a file, which is created, for this process until the end of the block or of the process. Raises `taken` as `lock_open_file` does.

    On Windows nothing is locked.
    """
    if os.name != "posix":  # an open file would keep its folder from being renamed or removed
        path.touch()
        yield
        return
    with path.open("w") as file:
        lock_open_file(file, taken, timeout)
        yield


def is_file_locked(path: Path) -> bool:
    """Return whether another process has locked a file, or this one cannot open it; False if there is no such file, which is not created.

    The check takes a shared lock for a moment. It does not disturb other checks, but `lock_file` fails meanwhile: give it a `timeout`.
    """
    try:
        with path.open("r+b") as file:
            return not _try_lock(file, shared=True)
    except FileNotFoundError:
        return False
    except OSError:
        return True


@contextmanager
def wait_for_lock(path: Path, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Lock a file, which is created, until the end of the block or of the process; wait while another process has it, after a call of `on_wait`.

    On Windows nothing is locked.
    """
    taken = BlockingIOError()
    with path.open("w") as file:
        try:
            lock_open_file(file, taken)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def count_bytes(folder: Path) -> int:
    """Return the size of all files in a folder, in bytes. Files that disappear meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def move_file(source: Path, target: Path) -> None:
    """Rename a file, but never over another file. Raises FileExistsError."""
    try:
        os.link(source, target)  # unlike a rename, fails if the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(f"{target} exists already") from None
        os.rename(source, target)
    else:
        source.unlink()


def move_to_free_name(folder: Path, parent: Path, name: str, suffix: str = "") -> Path:
    """Rename a folder that holds files to `parent/name` + suffix, or to the first free one of `name-2`, `name-3`... Returns the new path.

    A name is free if neither `parent/name` nor `parent/name` + suffix exists. Processes that do this at the same time get different names.
    Raises OSError, and RunError if no name is free.
    """
    for number in range(1, MAX_NAMES + 1):
        candidate = name if number == 1 else f"{name}-{number}"
        target = parent / f"{candidate}{suffix}"
        if not os.path.lexists(parent / candidate) and _rename_folder(folder, target):
            return target
    raise RunError(f"no free name for run {name} in {parent}", "Choose another name with --name, or another folder with --out")


def _rename_folder(folder: Path, target: Path) -> bool:
    """Rename a folder; return False if the target is a folder that is not empty. The check and the rename are one system call."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Convert the errors of torch and safetensors on a full disk to OSError with the file name."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # RuntimeError, or SafetensorError, which derives from Exception alone
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror, str(path)) from error
        if any(words in str(error) for words in ("inline_container", "iostream error", "I/O error")):
            raise OSError(errno.EIO, "the file could not be written completely; is the disk full?", str(path)) from error
        raise


@contextmanager
def convert_os_errors(folder: str | Path, flag: str = "--out", hint: str = "") -> Iterator[None]:
    """Convert OSError to RunError: files in `folder` cannot be written. The hint is to name another one with `flag`, unless one is given."""
    try:
        yield
    except OSError as error:
        hint = hint or f"Name a folder that can be written with {flag}"
        raise RunError(f"cannot write to {error.filename or folder}: {error.strerror or error}", hint) from None


def replace_undecodable(path: str) -> str:
    """Return a path for files that hold UTF-8 only, such as parquet: bytes of a file name that are not UTF-8 become U+FFFD.

    >>> replace_undecodable("a\\udcff.png")
    'a\ufffd.png'
    """
    return path.encode(errors="surrogateescape").decode(errors="replace")
