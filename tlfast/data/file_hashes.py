"""A hash of the identity of files: for the keys of the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from . import images


def hash_files(paths: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of absolute paths, sizes, modification times and change times of files.

    For an image in a zip, tar or parquet file, size and times are those of this file. Cache keys are made from this value.
    """
    digest, last, signature = hashlib.sha256(), "", ""
    for path in paths:
        file, member = images.split_archive(path)
        if file != last:  # one system call for each archive: its members are adjacent
            last, signature = file, f"{os.path.abspath(file)}\0{_stat(file)}"
        digest.update(f"{signature}\0{member}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stat(file: str) -> str:
    try:
        stat = os.stat(file)
    except OSError:  # reported later as unreadable
        return "missing"
    return f"{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"  # the change time (ctime) also reflects permissions
