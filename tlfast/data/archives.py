"""Unpack zips and tarballs from the network or of a user: refuse unsafe members before anything is written."""

from __future__ import annotations

import filecmp
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from ..core import DataError, OnEvent, Progress
from .download import CHUNK
from .images import DAMAGED_ZIP
from .members import inner_path, is_outside, refuse_repeated

TARBALLS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DAMAGED_TARBALL = (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
MAX_UNPACKED = 200_000_000_000  # bytes
MAX_RATIO = 1000  # largest ratio of unpacked to packed size; that of photographs is near 1
RATIO_COUNTS_FROM = 1_000_000_000  # bytes; smaller archives may have any ratio
REPORTED = 64  # members between two reports of progress
TRUST_HINT = "If you trust it, unpack it yourself and import the folder"


def is_archive_name(name: str) -> bool:
    """Return whether a file name is that of a zip or tarball."""
    return name.lower().endswith((".zip", *TARBALLS))


def is_archive(path: Path) -> bool:
    """Return whether a file can be unpacked: by its name, and a zip also by its content."""
    return is_archive_name(path.name) or zipfile.is_zipfile(path)


def archive_stem(path: Path) -> str:
    """Return the file name of an archive without the ending of its format.

    >>> archive_stem(Path("deep_weeds-1.0.tar.gz"))
    'deep_weeds-1.0'
    """
    ending = max((ending for ending in (".zip", *TARBALLS) if path.name.lower().endswith(ending)), key=len, default="")
    return path.name[: len(path.name) - len(ending)] or path.name


def unpack(archive: Path, target: Path, on_event: OnEvent) -> None:
    """Unpack an archive to the new folder `target`. Raises DataError for a damaged archive, and for unsafe members before anything is written."""
    target.mkdir()
    if archive.name.lower().endswith(TARBALLS):
        _unpack_tarball(archive, target, on_event)
    else:
        _unpack_zip(archive, target, on_event)


def _unpack_zip(archive: Path, target: Path, on_event: OnEvent) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                _refuse(archive, member.filename, _find_problem(member))
            # Compare with the size of the file: in some bombs members share bytes, and the sum of packed sizes would be too large.
            _check_size(archive, sum(member.file_size for member in file.infolist()))
            members = [member for member in file.infolist() if not member.is_dir() and not member.filename.startswith("__MACOSX/")]
            refuse_repeated(archive, members)
            for done, member in enumerate(members, start=1):
                with file.open(member) as inner, _create(target, member.filename).open("wb") as outer:
                    shutil.copyfileobj(inner, outer, CHUNK)
                _report(archive, done, len(members), on_event)
    except DAMAGED_ZIP as error:
        raise DataError(f"{archive} is not a zip that can be unpacked ({error})", "Check it with: python -m zipfile -t FILE") from None


def _unpack_tarball(archive: Path, target: Path, on_event: OnEvent) -> None:
    try:
        with tarfile.open(archive) as file:
            members, unpacked = [], 0
            for member in file:  # decompresses the file once, without writing
                _refuse(archive, member.name, "" if member.isfile() or member.isdir() else "is a link or a special file")
                unpacked += member.size
                _check_size(archive, unpacked)
                members += [member] if member.isfile() else []
            assert file.fileobj
            while file.fileobj.read(CHUNK):  # to the end of the file, where the checksum of its compression is
                pass
            for done, member in enumerate(members, start=1):
                inner = file.extractfile(member)
                assert inner  # a regular file
                with inner, _create(target, member.name).open("wb") as outer:
                    shutil.copyfileobj(inner, outer, CHUNK)
                _report(archive, done, len(members), on_event)
    except DAMAGED_TARBALL as error:
        raise DataError(f"{archive} is not a tarball that can be unpacked ({error})", "Check it with: python -m tarfile -t FILE") from None


def _find_problem(member: zipfile.ZipInfo) -> str:
    """Return why a member of a zip is not unpacked, or ""."""
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    return "is encrypted" if member.flag_bits & 1 else ""


def _refuse(archive: Path, name: str, problem: str) -> None:
    """Raise DataError for a member outside the archive, or with another problem."""
    problem = is_outside(name) or problem
    if problem:
        raise DataError(f"{archive.name}: '{name}' {problem}; nothing was imported", TRUST_HINT)


def _check_size(archive: Path, unpacked: int) -> None:
    """Raise DataError for an archive whose members are many times larger than itself; `unpacked` is their size in bytes."""
    packed = archive.stat().st_size
    if unpacked > MAX_UNPACKED or (unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * packed):
        raise DataError(f"{archive.name}: {packed:,} bytes would become {unpacked:,}; nothing was imported", TRUST_HINT)


def _create(target: Path, name: str) -> Path:
    """Return the path of a member in `target`, in a folder that exists."""
    path = target / inner_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def copy_image(source: Path, target: Path) -> None:
    """Copy an image to a folder, which is made. Raises DataError if the file `target` exists with another content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not filecmp.cmp(source, target, shallow=False):
        raise DataError(f"two different images would become {target.parent.name}/{target.name}, one of them {source}", "Rename one of them, or move it away")
    shutil.copyfile(source, target)


def _report(archive: Path, done: int, total: int, on_event: OnEvent) -> None:
    if done % REPORTED == 0 or done == total:
        on_event(Progress(f"unpacking {archive.name}", done, total))
