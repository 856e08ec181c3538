"""Lists of image names: in folders, zips, tars and tables, from glob patterns, stdin and watched folders."""

from __future__ import annotations

import glob
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from ..core import DataError, UsageError
from ..core.run_files import MANIFEST
from ..core.setting_checks import LATEST
from . import images
from .left_out import HIDDEN, LINK, OUTPUT, LeftOut
from .members import inner_path, is_outside, leave_out_hidden, refuse_repeated
from .records import check_unique, read_numbered_records, resolve_beside
from .remote import is_fsspec_url, list_remote
from .types import PARQUET, TABLES, TAR

STDIN = "-"
BYTE_ORDER_MARK = "\ufeff"  # begins the text that some programs of Windows write
HTTP_PREFIXES = ("http://", "https://")
PACKED = (TAR, PARQUET)  # may hold images
RUN_MARKS = (MANIFEST, LATEST)  # files of tlfast in the folder of a run, and in that of the runs of a task
DOWNLOAD_FIRST = "Download the images first, and give their paths"
ENCRYPTED = 1  # flag of a member of a zip


def walk_images(root: str | Path, left_out: LeftOut | None = None, out: str = "") -> Iterator[str]:
    """Yield the image files below a folder, sorted in each folder. Hidden files and folders, links to folders and output of tlfast are left out.

    They and other files are added to `left_out`, hidden folders only if they hold images. `out` is the folder for runs. Raises DataError for a folder
    that cannot be read.
    """
    for path in walk_files(root, left_out, out):
        if _is_image(path):
            yield path
        elif left_out is not None:
            left_out.add_file(os.path.basename(path))


def walk_files(root: str | Path, left_out: LeftOut | None = None, out: str = "") -> Iterator[str]:
    """Yield the files below a folder, as `walk_images` does, images or not."""
    output = os.path.realpath(out) if out else ""
    for folder, inner, files in os.walk(root, onerror=_refuse_folder):
        hidden, visible = (sorted(name for name in inner if name.startswith(".") == is_hidden) for is_hidden in (True, False))
        inner[:] = [name for name in visible if not os.path.islink(path := os.path.join(folder, name)) and not _is_output(path, output)]
        if left_out is not None:
            for path in (os.path.join(folder, name) for name in visible if name not in inner):
                left_out.add_folder(LINK if os.path.islink(path) else OUTPUT, path)
            for path in filter(_holds_images, (os.path.join(folder, name) for name in hidden)):
                left_out.add_folder(HIDDEN, path)
        yield from (os.path.join(folder, name) for name in sorted(files))


def _refuse_folder(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # removed in the meantime
        return
    raise DataError(f"{error.filename} cannot be read: {error.strerror}", "Change its permissions, or remove it")


def _holds_images(folder: str) -> bool:
    """Return whether a folder itself has a file with the suffix of an image."""
    try:
        return any(map(images.is_image_name, os.listdir(folder)))
    except OSError:
        return False


def _is_output(folder: str, output: str) -> bool:
    """Return whether a folder is output of tlfast, whose pictures are no images of a user: the folder for runs, runs of a task, or a run."""
    return os.path.realpath(folder) == output or any(os.path.isfile(os.path.join(folder, mark)) for mark in RUN_MARKS)


def _is_image(path: str) -> bool:
    return images.identify(os.path.basename(path), partial(_open_regular, path))


def list_members(archive: str | Path, left_out: LeftOut | None = None) -> list[str]:
    """Return the sorted image names in a zip. Other files and hidden folders are added to `left_out`.

    Raises DataError for a damaged zip and for members with a path outside of it.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if not info.is_dir()]
            names = [info.filename for info in members]
            for name in names:
                if problem := is_outside(name):
                    hint = "Such archives can be malicious; if you trust it, unpack it yourself and give the folder"
                    raise DataError(f"{archive}: '{name}' {problem}; nothing was read", hint)
            refuse_repeated(archive, members)
            visible = sorted({name for name in names if not name.startswith("__MACOSX/")})
            if visible and all(info.flag_bits & ENCRYPTED for info in members):
                raise DataError(f"{archive} is encrypted", "Unpack it with its password, and give the folder")
            visible = leave_out_hidden(visible, f"{archive}!/", left_out)
            found = [name for name in visible if images.identify(name, partial(file.open, name))]
    except (OSError, *images.DAMAGED_ZIP) as error:
        raise DataError(f"{archive} is not a zip that can be read ({error})", "Check it with: python -m zipfile -t FILE") from None
    if left_out is not None:
        for name in set(visible).difference(found):
            left_out.add_file(inner_path(name).name)
    return found


def _open_regular(path: str) -> IO[bytes]:
    """Open a file. Raises OSError also for pipes and sockets, which may never be readable."""
    if not os.path.isfile(path):
        raise OSError("not a regular file")
    return Path(path).open("rb")


def is_table(name: str) -> bool:
    """Return whether a name is that of a table of images, by its suffix."""
    return name.lower().endswith(TABLES)


def gather_sources(
    sources: Sequence[str], column: str = "path", stdin: Iterable[str] = (), left_out: LeftOut | None = None, network: bool = True
) -> Iterator[str]:
    """Yield the images of files, folders, zips, tars, CSV and parquet files, glob patterns, URLs and `-` (a list on `stdin`).

    `column` is the path column of tables. Missing files are included; they become rows with an error. The other files and folders of folders, zips and
    tars are added to `left_out`. Without `network`, the address of a folder is not listed. Raises UsageError or DataError.
    """
    for source in sources:
        yield from [source] if is_fsspec_url(source) and not network else _expand(source, column, stdin, left_out)


def _expand(source: str, column: str, stdin: Iterable[str], left_out: LeftOut | None) -> Iterator[str]:
    suffix = os.path.splitext(source)[1].lower()
    if source == STDIN:
        return (name for line in stdin if (name := line.strip().removeprefix(BYTE_ORDER_MARK).strip()))
    if is_http_url(source):
        return iter([source])
    if is_fsspec_url(source):
        return list_remote(source)
    if os.path.isdir(source):
        return walk_images(source, left_out)
    if suffix == ".zip" and os.path.isfile(source):
        return (f"{source}!/{name}" for name in list_members(source, left_out))
    if suffix in PACKED and os.path.isfile(source):
        from . import packed, parquet_images  # imported here, because most sources are files and folders

        if suffix == TAR:
            return iter(packed.list_tar(Path(source), left_out))
        if parquet_images.holds_images(Path(source), column):
            return packed.list_rows(Path(source), column)
    if suffix in TABLES and os.path.isfile(source):
        return _read_column(Path(source), column)
    if not os.path.exists(source) and glob.has_magic(source):
        return _expand_matches(sorted(path for path in _match_pattern(source) if os.path.isfile(path)), column, left_out)
    return iter([source])


def _expand_matches(paths: Sequence[str], column: str, left_out: LeftOut | None) -> Iterator[str]:
    """Yield the paths, and in place of zips, tars and parquet files their images."""
    for path in paths:
        yield from _expand(path, column, (), left_out) if os.path.splitext(path)[1].lower() in (".zip", *PACKED) else [path]


def _match_pattern(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern. `**` does not follow links to folders, which may form a circle, and no `*` matches hidden names."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    first = parts.index("**")
    start, rest = os.sep.join(parts[:first]), parts[first:] + (["*"] if parts[-1] == "**" else [])
    hidden = any(part.startswith(".") for part in rest)
    for folder in glob.glob(start or os.sep) if first else ["."]:
        for found in Path(folder).glob(os.sep.join(rest)):
            if hidden or not any(part.startswith(".") for part in found.relative_to(folder).parts):
                yield str(found)


def has_many(source: str) -> bool:
    """Return whether a source of `gather_sources` can have several images: a folder, a zip, a table or a pattern."""
    is_pattern = glob.has_magic(source) and not os.path.exists(source) and not is_http_url(source)
    return is_pattern or os.path.isdir(source) or os.path.splitext(source)[1].lower() in (".zip", TAR, *TABLES)


def may_be_table(source: str) -> bool:
    """Return whether a source of `gather_sources` is a table, or a pattern that may match tables."""
    return os.path.splitext(source)[1].lower() in TABLES or glob.has_magic(source)


def find_missing(sources: Iterable[str]) -> str:
    """Return the first of the sources that is a path without a file or folder, "" if there is none."""
    local = (source for source in sources if not (is_url(source) or glob.has_magic(source)))
    return next((source for source in local if not os.path.exists(images.split_archive(source)[0])), "")


def is_url(name: str) -> bool:
    """Return whether the path of an image is a URL: http(s), or one that fsspec reads."""
    return is_http_url(name) or is_fsspec_url(name)


def is_http_url(source: str) -> bool:
    """Return whether a source is an http(s) URL."""
    return source.lower().startswith(HTTP_PREFIXES)


def _read_column(path: Path, column: str) -> Iterator[str]:
    columns, records = read_numbered_records(path)
    if column not in columns:
        raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(columns) or 'none'}", "Name the column of paths with --column")
    check_unique(path, columns, [column])
    for line, record in records:
        name = (record.get(column) or "").strip()
        if not name:
            raise DataError(f"{path.name} line {line}: no path", f"Fill in the column '{column}', or delete the row")
        yield name if is_url(name) else resolve_beside(path, name)


def watch_folder(folder: str, seconds: float = 1.0) -> Iterator[str]:
    """Yield each image below a folder, then each new image, without end. The folder is listed every `seconds`.

    A file is yielded when it is the same in two listings, by size and time of change, and again if it changes or is replaced later. Raises UsageError
    if `folder` is not a folder.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"--watch {folder}: not a folder", "Give --watch the folder that receives images")
    known: dict[str, tuple[int, ...]] = {}  # state of the file when it was last identified
    previous: dict[str, tuple[int, ...]] = {}
    while True:
        states = {path: state for path in walk_files(folder) if (state := _file_state(path))}
        known = {path: state for path, state in known.items() if path in states}
        for path, state in states.items():
            if state == previous.get(path) and state != known.get(path):
                known[path] = state
                if _is_image(path):
                    yield path
        previous = states
        time.sleep(seconds)


def _file_state(path: str) -> tuple[int, ...]:
    """Return what changes with the content of a file; () if it was removed."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
