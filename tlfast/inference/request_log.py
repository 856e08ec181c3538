"""A request id for each request of `tlfast serve`, and a log with one line of JSON per request."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID_HEADER = "x-request-id"
KNOWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # an id of a proxy that is kept


def print_line(line: str) -> None:
    """Write a line of the log to stderr."""
    print(line, file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class JsonHandler(logging.Handler):
    """Logging handler for the messages of other packages: one line of JSON each, with time (UTC), level, logger and message."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(json.dumps({"time": _now(), "level": record.levelname.lower(), "logger": record.name, "message": self.format(record)}))


def is_not_cancellation(record: logging.LogRecord) -> bool:
    """Return False for the traceback of a request that was cancelled because the server stops. A filter of the loggers of other packages."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class RequestLog:
    """ASGI middleware: every response has the header `X-Request-ID`, that of the request if it has one.

    `write` receives one line of JSON per request: time (UTC), id, client, method, path, status, and seconds. None: nothing is logged.
    `count` receives path, status and seconds of each request.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], object] | None, count: Callable[[str, int, float], object]) -> None:
        self.app, self.write, self.count = app, write, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        given = dict(scope["headers"]).get(ID_HEADER.encode(), b"").decode("latin-1")
        request_id = given if KNOWN_ID.fullmatch(given) else uuid.uuid4().hex

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (ID_HEADER.encode(), request_id.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            status = 500  # the response is made outside this middleware
            raise
        finally:
            seconds = time.perf_counter() - started
            self.count(scope["path"], status, seconds)
            if self.write:
                facts = {
                    "time": _now(),
                    "id": request_id,
                    "client": (scope.get("client") or ("",))[0],
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(seconds, 4),
                }
                self.write(json.dumps(facts))
