"""Images in object stores and other file systems, read by fsspec: `s3://bucket/photos`, `gs://...`, `hf://datasets/user/name/photos`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from typing import Any

from ..core import DataError, ImageError, UsageError
from ..core.errors import first_line
from .images import is_image_name, read_bytes

SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
WEB = ("http", "https")  # downloaded by `fetch`, which checks addresses
HOSTS = ("ftp", "sftp", "ssh", "smb", "webhdfs", "webdav")  # would contact any host that an address names, also of the private network


def is_fsspec_url(source: str) -> bool:
    """Return whether a source is a URL that fsspec reads, such as s3://: not http(s), and not the name of a local file.

    >>> is_fsspec_url("s3://bucket/a.jpg"), is_fsspec_url("https://example.org/a.jpg"), is_fsspec_url("photos")
    (True, False, False)
    """
    found = SCHEME.match(source)
    return found is not None and found[1].lower() not in WEB and not os.path.exists(source)


def list_remote(source: str) -> Iterator[str]:
    """Yield the images of a file, a folder or a pattern, folder by folder. Raises UsageError for an unknown kind of address, or DataError."""
    system, root = _open_system(source)
    try:
        if glob.has_magic(root):
            yield from (system.unstrip_protocol(path) for path in sorted(system.glob(root)) if system.isfile(path))
        elif not system.isdir(root):
            yield source  # a missing file becomes a row with the reason
        else:
            for folder, _, files in system.walk(root):
                if not any(part.startswith(".") for part in folder.removeprefix(root).split("/")):
                    yield from (system.unstrip_protocol(f"{folder.rstrip('/')}/{name}") for name in sorted(files) if is_image_name(name))
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"{source} cannot be listed ({first_line(error)})", "Check the address, the connection and the credentials") from None


def read_remote(path: str) -> bytes:
    """Return the bytes of a file. Raises ImageError."""
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, name = _open_system(path)
        if isinstance(system, LocalFileSystem):  # this machine, where a pipe has no end
            return read_bytes(name)
        content: bytes = system.cat_file(name)
        return content
    except ImageError:
        raise
    except (UsageError, DataError) as error:
        raise ImageError(error.message) from None
    except Exception as error:
        raise ImageError(f"cannot be read ({first_line(error)})") from None


def _open_system(source: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it. Raises UsageError or DataError."""
    import fsspec  # most commands need none

    scheme = source.split("://")[0]
    known = "https://, s3://, gs:// and hf://"
    unknown = UsageError(f"addresses that begin with {scheme}:// cannot be read", f"Give one that begins with {known}, or download the files")
    if scheme.lower() in HOSTS:
        raise unknown
    try:
        return fsspec.core.url_to_fs(source)
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs another package ({first_line(error)})", "Install it with pip") from None
    except ValueError:
        raise unknown from None
    except Exception as error:  # each file system has errors of its own, such as a host that is not found
        raise DataError(f"{source} cannot be opened ({first_line(error)})", "Check the address, the connection and the credentials") from None
