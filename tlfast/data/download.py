"""One file from the network: resumed where it broke off, whole or under another name, checked against what is known of it."""

from __future__ import annotations

import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..core.errors import DataError
from ..core.events import OnEvent, Progress, ignore_event

TIMEOUT = (5, 30)  # seconds to connect, and without a byte
ATTEMPTS = 4
PAUSE = 0.5  # seconds before the second attempt, then twice and three times that
CHUNK = 1 << 16
SIZE_TOLERANCE = 0.05  # share by which a download may differ from `Source.size`, which is only roughly known


def download(url: str, path: Path, size: int | None = None, on_event: OnEvent = ignore_event) -> None:
    """Download a file, going on where an earlier attempt stopped; one that is there already is left as it is.

    Until it is whole it is called `<name>.part`. `size` is about how many bytes to expect; more than 5 % off is not the file meant.
    Raises DataError whose message is the reason alone.
    """
    import requests

    if path.exists():
        return
    part, host = path.with_name(path.name + ".part"), urlsplit(url).netloc
    with convert_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _fetch(url, part, size, on_event)
                break
            except requests.RequestException as error:
                if not part.exists():  # nothing ever came: trying again would only take longer to say so
                    raise DataError(f"{host} cannot be reached ({describe_failure(error)})") from None
                if attempt == ATTEMPTS:
                    raise DataError(f"{host}: the connection broke {ATTEMPTS} times; {part.stat().st_size:,} bytes are kept to go on from") from None
                time.sleep(PAUSE * attempt)
        _note_path(part).unlink(missing_ok=True)
        if path.suffix == ".zip" and not zipfile.is_zipfile(part):
            part.unlink()
            raise DataError(f"{host} sent something else than a zip as {path.name}")
        os.replace(part, path)


def _fetch(url: str, part: Path, size: int | None, on_event: OnEvent) -> None:
    """Begin `part`, or go on with it, to its end. Raises requests' errors for a broken connection, DataError for a wrong answer."""
    import requests

    known = _read_note(part)
    offset = part.stat().st_size if known else 0
    if offset and offset == known["total"]:
        return
    with requests.get(url, headers=_headers(offset, known), stream=True, timeout=TIMEOUT) as response:
        if offset and response.status_code in (206, 416) and not _can_continue(response, offset, known["total"]):
            part.write_bytes(b"")
            raise requests.ConnectionError("the rest does not fit what is there")  # the next attempt begins anew
        if response.status_code == 200:
            offset = 0  # the server ignores ranges, or has another version by now: it sends the whole file
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None
        _check_answer(response, part, 206 if offset else 200, total, size)
        if not offset:
            part.write_bytes(b"")
            _note_path(part).write_text(json.dumps({"version": _version(response), "total": total}), encoding="utf-8")
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
    headers = {"Accept-Encoding": "identity"}  # a compressed answer has another length, and ranges of its own
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if known["version"]:
            headers["If-Range"] = known["version"]
    return headers


def _can_continue(response: Any, offset: int, total: int) -> bool:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == offset and found[2] in (str(total), "*")


def _version(response: Any) -> str:
    """Return what If-Range accepts: a strong ETag, or the date of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _check_answer(response: Any, part: Path, status: int, total: int | None, size: int | None) -> None:
    host, name = urlsplit(response.url).netloc, part.name.removesuffix(".part")
    if response.status_code != status:
        raise DataError(f"{host} answered {response.status_code} {response.reason} for {name}")
    if response.headers.get("Content-Type", "").startswith("text/html"):  # a page that asks for confirmation, or tells of a quota
        raise DataError(f"{host} answered with a web page instead of {name}")
    if size and total is not None and abs(total - size) > SIZE_TOLERANCE * size:
        raise DataError(f"{name} has {total:,} bytes where about {size:,} were expected")


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_note(part: Path) -> dict[str, Any]:
    """Return the version and length of the file that `part` is the beginning of, or {} where they are not known: then it is begun anew."""
    try:
        note = json.loads(_note_path(part).read_text(encoding="utf-8"))
        return {"version": str(note["version"]), "total": int(note["total"])} if part.is_file() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def describe_failure(error: Exception) -> str:
    """Return an error's first line; of those of requests the innermost words, around which it names pools and objects."""
    inner = getattr(error.args[0], "reason", None) if error.args else None
    return str(inner).rsplit(": ", 1)[-1] if inner else str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def convert_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a DataError that names the folder being filled."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DataError(f"{folder} cannot be filled: {error.strerror or error}{where}", "Check the free space and the permissions") from None
