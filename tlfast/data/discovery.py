"""Lists of image names: in folders, zips, CSV and parquet files, from glob patterns and stdin."""

from __future__ import annotations

import csv
import glob
import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..core import DataError, DataSettings, UsageError
from ..core.errors import first_line, make_printable
from ..core.settings import flag_name
from . import images
from .left_out import HIDDEN, LINK, OUTPUT, LeftOut, find_hidden
from .remote import is_remote, list_remote

STDIN = "-"
BYTE_ORDER_MARK = "\ufeff"  # begins the text that some programs of Windows write
ADDRESSES = ("http://", "https://")
PARQUET = ".parquet"
PARQUET_BATCH = 10_000  # rows that are read at once
TABLES = (".csv", ".tsv", PARQUET)
TAR = ".tar"
PACKED = (TAR, PARQUET)  # may hold images
RUN_MARKS = ("run.json", "latest")  # files of tlfast in the folder of a run, and in that of the runs of a task
SEPARATOR = re.compile(r"sep=.", re.IGNORECASE)  # names the delimiter of a CSV file to Excel
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


def refuse_repeated(archive: str | Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise DataError if a zip has two members of one name with different contents."""
    contents = {(info.filename, info.CRC, info.file_size) for info in members}
    if differing := [name for name, count in Counter(name for name, *_ in contents).items() if count > 1]:
        hint = "Write the zip again, or unpack it and give the folder"
        raise DataError(f"{archive} has '{make_printable(differing[0])}' more than once, with different contents", hint)


def leave_out_hidden(names: Sequence[str], prefix: str, left_out: LeftOut | None) -> list[str]:
    """Return the members of an archive that are in no hidden folder. The hidden folders with images are added to `left_out`, with `prefix` before the path."""
    folders = {name: find_hidden(inner_path(name)) for name in names}
    for name, folder in folders.items():
        if folder and left_out is not None and images.is_image_name(name):
            left_out.add_folder(HIDDEN, prefix + folder)
    return [name for name in names if not folders[name]]


def _open_regular(path: str) -> IO[bytes]:
    """Open a file. Raises OSError also for pipes and sockets, which may never be readable."""
    if not os.path.isfile(path):
        raise OSError("not a regular file")
    return Path(path).open("rb")


def inner_path(name: str) -> PurePosixPath:
    """Return the path of a member of a zip, with forward slashes."""
    return PurePosixPath(name.replace("\\", "/"))  # some Windows programs write backslashes


def is_outside(name: str) -> str:
    """Return why the name of a member is a path outside the zip, or "".

    >>> is_outside("../a.jpg")
    'points outside the archive'
    """
    path = inner_path(name)
    if path.is_absolute() or re.match("[A-Za-z]:", path.as_posix()):
        return "has an absolute path"
    return "points outside the archive" if ".." in path.parts else ""


def is_table(name: str) -> bool:
    """Return whether a name is that of a table of images, by its suffix."""
    return name.lower().endswith(TABLES)


def read_records(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns and records of a file of comma-, semicolon- or tab-separated values, or of a parquet file, in constant memory. Raises DataError."""
    columns, numbered = read_numbered_records(path)
    return columns, (record for _, record in numbered)


def read_numbered_records(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """Return the columns, and each record with the number of its line, as `read_records` does. A parquet file counts as one with a line of columns."""
    if path.suffix.lower() == PARQUET:
        columns, records = _read_parquet(path)
        return columns, enumerate(records, start=2)
    lines = _read_csv(path)
    return next(lines), lines


def _read_csv(path: Path) -> Iterator[Any]:
    """Yield the list of columns of a CSV file, then the number of the line and the record of each row.

    Empty lines, blanks around the names of columns, and the first line `sep=;` that some spreadsheets write are ignored. Raises DataError for a line that
    cannot be read, or with more cells than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # with its line ends, which may be part of a quoted name
            before, first = 0, file.readline()  # number of lines before that of the columns
            while first and (not first.strip() or (not before and SEPARATOR.fullmatch(first.strip()))):
                before, first = before + 1, file.readline()
            if not first:
                raise DataError(f"{path} is empty", "Add a line of column names and one line per image")
            try:
                delimiter = csv.Sniffer().sniff(first.rstrip("\r\n"), ",;\t").delimiter
            except csv.Error:  # a single column
                delimiter = ","
            yield from _parse_csv(csv.DictReader(chain([first], file), delimiter=delimiter, skipinitialspace=True), path, before)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason})", "Save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None


def _parse_csv(reader: csv.DictReader[str], path: Path, before: int) -> Iterator[Any]:
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        yield list(reader.fieldnames)
        for record in reader:
            if any(record.pop(None, None) or ()):  # cells without a column; empty ones do no harm
                problem = f"{path.name} line {before + reader.line_num}: more cells than columns"
                raise DataError(problem, "Put cells that hold the delimiter in double quotes")
            yield before + reader.line_num, record
    except csv.Error as error:
        hint = "Correct the line; a quote that is not closed joins all lines after it"
        raise DataError(f"{path.name} line {before + reader.line_num}: {error}", hint) from None


def _read_parquet(path: Path) -> tuple[list[str], Iterator[dict[str, str]]]:
    """Return the columns of text and numbers of a parquet file, and its records as text; missing values are "". Raises DataError."""
    import pyarrow as pa  # imported here, because most commands read no parquet file
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _describe_bad_parquet(path, error) from None
    columns = [field.name for field in schema if not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))]

    def read() -> Iterator[dict[str, str]]:
        try:
            for batch in parquet.ParquetFile(path).iter_batches(PARQUET_BATCH, columns=columns):
                for record in batch.to_pylist():
                    yield {name: "" if value is None else str(value) for name, value in record.items()}
        except (OSError, pa.ArrowException) as error:
            raise _describe_bad_parquet(path, error) from None

    return columns, read()


def _describe_bad_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a parquet file that can be read ({first_line(error)})", "Write it again, or give a CSV file")


def gather_sources(
    sources: Sequence[str], column: str = "path", stdin: Iterable[str] = (), left_out: LeftOut | None = None, network: bool = True
) -> Iterator[str]:
    """Yield the images of files, folders, zips, tars, CSV and parquet files, glob patterns, URLs and `-` (a list on `stdin`).

    `column` is the path column of tables. Missing files are included; they become rows with an error. The other files and folders of folders, zips and
    tars are added to `left_out`. Without `network`, the address of a folder is not listed. Raises UsageError or DataError.
    """
    for source in sources:
        yield from [source] if is_remote(source) and not network else _expand(source, column, stdin, left_out)


def _expand(source: str, column: str, stdin: Iterable[str], left_out: LeftOut | None) -> Iterator[str]:
    suffix = os.path.splitext(source)[1].lower()
    if source == STDIN:
        return (name for line in stdin if (name := line.strip().removeprefix(BYTE_ORDER_MARK).strip()))
    if is_address(source):
        return iter([source])
    if is_remote(source):
        return list_remote(source)
    if os.path.isdir(source):
        return walk_images(source, left_out)
    if suffix == ".zip" and os.path.isfile(source):
        return (f"{source}!/{name}" for name in list_members(source, left_out))
    if suffix in PACKED and os.path.isfile(source):
        from . import packed, parquet_images  # import this module

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
    is_pattern = glob.has_magic(source) and not os.path.exists(source) and not is_address(source)
    return is_pattern or os.path.isdir(source) or os.path.splitext(source)[1].lower() in (".zip", TAR, *TABLES)


def may_be_table(source: str) -> bool:
    """Return whether a source of `gather_sources` is a table, or a pattern that may match tables."""
    return os.path.splitext(source)[1].lower() in TABLES or glob.has_magic(source)


def find_missing(sources: Iterable[str]) -> str:
    """Return the first of the sources that is a path without a file or folder, "" if there is none."""
    local = (source for source in sources if not (is_url(source) or glob.has_magic(source)))
    return next((source for source in local if not os.path.exists(images.split_archive(source)[0])), "")


def is_url(name: str) -> bool:
    """Return whether the path of an image is that of another machine."""
    return is_address(name) or is_remote(name)


def is_address(source: str) -> bool:
    """Return whether a source is an http(s) URL."""
    return source.lower().startswith(ADDRESSES)


def resolve_beside(table: Path, name: str) -> str:
    """Return the path of an image in a CSV file, relative to that file. Backslashes are separators unless a file has such a name.

    `a/../b.jpg` is `b.jpg`.
    """
    if "\\" in name and not (table.parent / name).exists():
        name = name.replace("\\", "/")
    return str(table.parent / (os.path.normpath(name) if ".." in name else name))


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


def check_unique(path: Path, columns: Sequence[str], used: Sequence[str]) -> None:
    """Raise DataError if a table has one of the used columns more than once."""
    for column in used:
        if columns.count(column) > 1:
            raise DataError(f"{path.name} has {columns.count(column)} columns '{column}'", "Rename or remove the others")


def check_optional(path: Path, columns: Iterable[str], settings: DataSettings) -> None:
    """Raise UsageError if a column of splits or groups was named that is not there."""
    found = list(columns)
    for name in ("split_col", "group_col"):
        column = getattr(settings, name)
        if column not in found and column != getattr(DataSettings, name):
            hint = f"Name the column with {flag_name(name)}, or remove the flag"
            raise UsageError(f"{path.name} has no column '{column}'; it has: {', '.join(found) or 'none'}", hint)


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
