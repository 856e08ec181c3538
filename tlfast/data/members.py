"""Names of the members of archives: their paths, unsafe and repeated names, hidden folders."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..core import DataError
from ..core.errors import make_printable
from . import images
from .left_out import HIDDEN, LeftOut, find_hidden


def inner_path(name: str) -> PurePosixPath:
    """Return the path of a member of a zip, with forward slashes."""
    return PurePosixPath(name.replace("\\", "/"))  # some Windows programs write backslashes


def relative_path(path: str, folder: str | Path) -> str:
    """Return a path relative to a folder, with forward slashes; the path itself if it is on another drive of Windows.

    >>> relative_path("/photos/red/1.jpg", "/photos")
    'red/1.jpg'
    """
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:
        return path


def is_outside(name: str) -> str:
    """Return why the name of a member is a path outside the zip, or "".

    >>> is_outside("../a.jpg")
    'points outside the archive'
    """
    path = inner_path(name)
    if path.is_absolute() or re.match("[A-Za-z]:", path.as_posix()):
        return "has an absolute path"
    return "points outside the archive" if ".." in path.parts else ""


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
