"""One image from an http(s) address, within limits of size and time, and not from inside the user's own network unless asked."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from ..core.errors import ImageError

SECONDS, BYTES, REDIRECTS = 20.0, 64 << 20, 5
BLOCK = 1 << 16
AGENT = "tlfast"


def fetch(address: str, allow_private: bool = False, seconds: float = SECONDS, limit: int = BYTES) -> bytes:
    """Return what lies at an address. Raises ImageError with the reason alone.

    The name is resolved once and the connection goes to the address that was judged, also after each redirect: a name that first points
    outside and then inside (DNS rebinding) gains nothing.
    """
    deadline = time.monotonic() + seconds
    try:
        for _ in range(REDIRECTS + 1):
            status, location, body = _get(address, allow_private, deadline, limit)
            if not location:
                break
            address = urljoin(address, location)
        else:
            raise ImageError(f"more than {REDIRECTS} redirects")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError(f"cannot be fetched ({_reason(error)})") from None
    if status != http.client.OK:
        raise ImageError(f"cannot be fetched (the server answered {status})")
    return body


def _get(address: str, allow_private: bool, deadline: float, limit: int) -> tuple[int, str, bytes]:
    """Ask once; return the status, where it redirects to ("" for nowhere) and the body."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"'{address}' is not an http(s) address")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_time_left(deadline), context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_time_left(deadline))
    connection._create_connection = _connector(allow_private)  # type: ignore[attr-defined]
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": AGENT, "Accept": "image/*"})
        answer = connection.getresponse()
        location = answer.getheader("Location", "") if answer.status in (301, 302, 303, 307, 308) else ""
        return answer.status, location, b"" if location else _read_body(connection, answer, deadline, limit)
    finally:
        connection.close()


def _read_body(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline: float, limit: int) -> bytes:
    blocks: list[bytes] = []
    size = 0
    while True:
        if connection.sock is not None:  # http.client lets go of it where the server will close
            connection.sock.settimeout(_time_left(deadline))
        block = answer.read1(BLOCK)
        if not block:
            return b"".join(blocks)
        _time_left(deadline)
        blocks.append(block)
        size += len(block)
        if size > limit:
            raise ImageError(f"more than {limit >> 20} MB")


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise ImageError("took too long")
    return left


def _connector(allow_private: bool) -> Callable[..., socket.socket]:
    """Return what `http.client` makes its connections with: to public addresses only, unless others are allowed."""

    def connect(address: tuple[str, int], timeout: float, *ignored: object) -> socket.socket:
        host, port = address
        found = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        private = [ip for ip in found if not ipaddress.ip_address(str(ip).partition("%")[0]).is_global]
        if private and not allow_private:
            named = host if host == private[0] else f"{host} ({private[0]})"
            raise ImageError(f"{named} is inside a private network (--allow-private)")
        return socket.create_connection((str(found[0]), port), timeout)

    return connect


def _reason(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__)[:120]
