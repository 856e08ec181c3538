"""Refusal of requests for other host names and from other sites, which a browser on this machine could be made to send (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..core import UsageError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def allow_hosts(host: str, names: Collection[str] = ()) -> frozenset[str]:
    """Return the host names that requests to a server on the address `host` may have: `host` and local ones on a local address, and `names`. Empty: any.

    A name may be the address of a page: its host counts. Raises UsageError for a name without a host.

    >>> sorted(allow_hosts("127.0.0.1", ["https://plants.example.org:8443"]))
    ['127.0.0.1', '::1', 'localhost', 'plants.example.org']
    """
    local = (host, *LOCAL_NAMES) if is_local(host) else LOCAL_NAMES if names else ()
    return frozenset((*map(_parse_allowed, names), *(name.lower() for name in local)))


def _parse_allowed(name: str) -> str:
    """Return the host of a name or address as browsers send it: in lower case, with other than ASCII letters encoded."""
    try:
        return str(ipaddress.ip_address(name))  # of IPv6 too, which a URL has in brackets
    except ValueError:
        found = _host_name(name if "//" in name else f"//{name}")
    try:
        found = found.encode("idna").decode()
    except UnicodeError:
        found = ""
    if not re.fullmatch(r"[\w.:-]+", found):
        raise UsageError(f"--allow-host '{name}' is not the name of a host", "Give whole names, such as plants.example.org; separate several by commas")
    return found


def is_local(host: str) -> bool:
    """Return whether an address accepts connections from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class HostCheck:
    """ASGI middleware: requests must name one of `hosts` in the header Host, unless it is empty.

    A header Origin must name the same host, or one of `hosts` that is not local: the header Host may be that of the server behind a proxy.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self.find_problem(Headers(scope=scope)) if scope["type"] == "http" else ""
        if problem:
            await JSONResponse({"error": problem}, 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def find_problem(self, headers: Headers) -> str:
        """Return why a request is refused, or ""."""
        host, origin = _host_name(f"//{headers.get('host', '')}"), _host_name(headers.get("origin", ""))
        if self.hosts and host not in self.hosts:
            return f"the host '{host[:80]}' is not served here; start the server with --allow-host NAME for other names"
        if "origin" in headers and origin != host and (origin not in self.hosts or origin in LOCAL_NAMES):
            remedy = f"pass the header Host on, or start the server with --allow-host {origin[:80] or 'NAME'}"
            return f"requests from pages of other sites are refused; for the page of this server behind a proxy, {remedy}"
        return ""


def _host_name(address: str) -> str:
    """Return the host name of a URL in lower case, without the port; "" for an invalid one."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
