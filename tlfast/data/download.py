"""Download of one file: resumed after a broken connection, checked, and renamed when complete."""

from __future__ import annotations

import json
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core import DataError, OnEvent, Progress, ignore_event
from ..core.errors import first_line

TIMEOUT = (5, 30)  # seconds to connect, and to wait for the next byte
ATTEMPTS = 4
PAUSE = 0.5  # seconds before the second attempt; later pauses are two and three times as long
CHUNK = 1 << 16
CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")  # of an address: "user:password@"
SIZE_TOLERANCE = 0.05  # relative deviation allowed from `Source.size`, which is approximate


def download(url: str, path: Path, size: int | None = None, on_event: OnEvent = ignore_event) -> None:
    """Download a file to `path`, or do nothing if it exists. Continues an earlier, incomplete download.

    An incomplete file has the name `<name>.part`. `size` is the approximate size in bytes; a file that differs by more than 5 % is rejected.
    Raises DataError; its message is the reason without the task.
    """
    import requests

    if path.exists():
        return
    part, host = path.with_name(path.name + ".part"), urlsplit(hide_credentials(url)).netloc
    with convert_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(url, part, size, on_event)
                break
            except requests.RequestException as error:
                if not part.exists():  # no byte was received: another attempt would fail too
                    raise DataError(f"{host} cannot be reached ({describe_failure(error)})") from None
                if attempt == ATTEMPTS:
                    raise DataError(f"{host}: the connection broke {ATTEMPTS} times; {part.stat().st_size:,} bytes are saved for the next attempt") from None
                time.sleep(PAUSE * attempt)
        _progress_path(part).unlink(missing_ok=True)
        kind = "zip" if path.suffix == ".zip" else "tarball" if ".tar" in path.suffixes or path.suffix == ".tgz" else ""
        if kind and not {"zip": zipfile.is_zipfile, "tarball": tarfile.is_tarfile}[kind](part):
            part.unlink()
            raise DataError(f"{host} sent a file that is not a {kind} as {path.name}")
        os.replace(part, path)


def _fetch(url: str, part: Path, size: int | None, on_event: OnEvent) -> None:
    """Start or continue the download of `part` until it is complete. Raises errors of requests for a broken connection, DataError for a wrong response."""
    import requests

    known = _read_progress(part)
    offset = part.stat().st_size if known else 0
    if offset and offset == known["total"]:
        return
    with requests.get(url, headers=_headers(offset, known), stream=True, timeout=TIMEOUT) as response:
        if offset and response.status_code in (206, 416) and not _can_continue(response, offset, known["total"]):
            part.write_bytes(b"")
            raise requests.ConnectionError("the server cannot continue this file")  # the next attempt starts again
        if response.status_code == 200:
            offset = 0  # the server ignores ranges or has a new version, and sends the whole file
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None
        _check_response(response, part, 206 if offset else 200, total, size)
        if not offset:
            part.write_bytes(b"")
            _progress_path(part).write_text(json.dumps({"version": _version(response), "total": total}), encoding="utf-8")
        _append(response, part, offset, total, on_event)
    if total is not None and part.stat().st_size != total:
        raise requests.ConnectionError("ended early")


def _append(response: Any, part: Path, offset: int, total: int | None, on_event: OnEvent) -> None:
    name, done = part.name.removesuffix(".part"), offset
    with part.open("ab") as file:
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            done += len(chunk)
            on_event(Progress(f"downloading {name}", done, total or 0))


def _headers(offset: int, known: dict[str, Any]) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # a compressed response has another length and other ranges
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if known["version"]:
            headers["If-Range"] = known["version"]
    return headers


def _can_continue(response: Any, offset: int, total: int) -> bool:
    """Return whether a response starts at byte `offset` of a file of `total` bytes."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == offset and match[2] in (str(total), "*")


def _version(response: Any) -> str:
    """Return a value for the If-Range header: a strong ETag, else the date of the last change."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _check_response(response: Any, part: Path, status: int, total: int | None, size: int | None) -> None:
    host, name = urlsplit(hide_credentials(response.url)).netloc, part.name.removesuffix(".part")
    if response.status_code != status:
        raise DataError(f"{host} answered {response.status_code} {response.reason} for {name}")
    if response.headers.get("Content-Type", "").startswith("text/html"):  # for example a page on an exceeded quota
        raise DataError(f"{host} answered with a web page instead of {name}")
    if size and total is not None and abs(total - size) > SIZE_TOLERANCE * size:
        raise DataError(f"{name} has {total:,} bytes, but about {size:,} were expected")


def _progress_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_progress(part: Path) -> dict[str, Any]:
    """Return the version and total size of an incomplete file, or {} if they are unknown: then the download starts again."""
    try:
        note = json.loads(_progress_path(part).read_text(encoding="utf-8"))
        return {"version": str(note["version"]), "total": int(note["total"])} if part.is_file() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def hide_credentials(text: str) -> str:
    """Return a text without the user names and passwords in its addresses.

    >>> hide_credentials("https://me:secret@server/w.zip")
    'https://server/w.zip'
    """
    return CREDENTIALS.sub("", text)


def describe_failure(error: Exception) -> str:
    """Return the first line of an error. For errors of requests: the text of the inner error, without names of pools and objects, and passwords."""
    inner = getattr(error.args[0], "reason", None) if error.args else None
    return hide_credentials(str(inner).rsplit(": ", 1)[-1] if inner else first_line(error))


@contextmanager
def convert_errors(folder: Path) -> Iterator[None]:
    """Convert OSError to DataError with the name of the folder that is written."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DataError(f"{folder} cannot be written: {error.strerror or error}{where}", "Check the free space and the permissions") from None
