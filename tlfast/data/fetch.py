"""Download of one image from an http(s) URL, with limits on size and time. Private addresses are refused by default."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote, urljoin, urlsplit

from ..core import ImageError
from ..core.errors import first_line

SECONDS, BYTES, REDIRECTS = 20.0, 64 << 20, 5
BLOCK = 1 << 16
AGENT = "tlfast"
URL_CHARACTERS = "".join(map(chr, range(33, 127)))  # others, such as spaces and letters with accents, are percent-encoded


def fetch(address: str, allow_private: bool = False, seconds: float = SECONDS, limit: int = BYTES) -> bytes:
    """Return the content of a URL, at most `limit` bytes, within `seconds`. Raises ImageError; its message is the reason without the URL.

    Each host name, also of a redirect, is resolved once, and the connection uses the checked IP address. This prevents DNS rebinding.
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
        _time_left(deadline)  # after it, an error is that of the closed connection
        raise ImageError(f"cannot be fetched ({_reason(error)})") from None
    if status != http.client.OK:
        raise ImageError(f"cannot be fetched (the server answered {status})")
    return body


def _get(address: str, allow_private: bool, deadline: float, limit: int) -> tuple[int, str, bytes]:
    """Send one request. Returns the status, the target of a redirect ("" for none) and the body."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"'{address}' is not an http(s) URL")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_time_left(deadline), context=ssl.create_default_context())
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_time_left(deadline))
    connection._create_connection = _connector(allow_private)  # type: ignore[attr-defined]  # http.client has no public hook for the socket
    try:
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_CHARACTERS)
        with _closed_at(connection, deadline):
            connection.request("GET", target, headers={"User-Agent": AGENT, "Accept": "image/*"})
            response = connection.getresponse()
            _time_left(deadline)
            location = response.getheader("Location", "") if response.status in (301, 302, 303, 307, 308) else ""
            return response.status, location, b"" if location else _read_body(connection, response, deadline, limit)
    finally:
        connection.close()


@contextmanager
def _closed_at(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Close a connection when the time is over. The timeout of a socket is that of each block, which a server can send byte by byte."""

    def close() -> None:
        with suppress(OSError):
            if connection.sock is not None:
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # not that of SSL, which another thread is reading

    timer = threading.Timer(_time_left(deadline), close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read_body(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float, limit: int) -> bytes:
    blocks: list[bytes] = []
    size = 0
    while True:
        if connection.sock is not None:  # None if the server closes the connection after the response
            connection.sock.settimeout(_time_left(deadline))
        block = response.read1(BLOCK)
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
    """Return a replacement for `socket.create_connection` that refuses private IP addresses, unless `allow_private`."""

    def connect(address: tuple[str, int], timeout: float, *ignored: object) -> socket.socket:
        host, port = address
        addresses = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        private = [ip for ip in addresses if not ipaddress.ip_address(str(ip).partition("%")[0]).is_global]
        if private and not allow_private:
            name = host if host == private[0] else f"{host} ({private[0]})"
            raise ImageError(f"{name} is inside a private network (--allow-private)")
        return _connect_to_first([str(ip) for ip in dict.fromkeys(addresses)], port, timeout)

    return connect


def _connect_to_first(addresses: Sequence[str], port: int, timeout: float) -> socket.socket:
    """Connect to the first address that answers, each in its share of the time. Raises the error of the last one."""
    for ip in addresses[:-1]:
        with suppress(OSError):
            return socket.create_connection((ip, port), timeout / len(addresses))
    return socket.create_connection((addresses[-1], port), timeout / len(addresses))


def _reason(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else "") or first_line(error))[:120]
