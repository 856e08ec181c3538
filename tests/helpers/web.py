"""A local web server that serves files and can be made to misbehave."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler


class Web:
    """A local server. `files` holds path -> body; the fields below make it misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {"ETag": '"one"'}
        self.content_type = "application/octet-stream"
        self.ranges = True  # honours Range and If-Range
        self.break_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.extra_length = 0  # added to the length that is announced
        self.wrong_range = False
        self.start = 0  # where an answer begins that no range was asked of
        self.status = 0
        self.seen: list[tuple[str, str | None]] = []  # (path, Range) of each GET
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        asked = handler.headers.get("Range")
        if handler.command == "GET":
            self.seen.append((path, asked))
        if self.status or path not in self.files:
            handler.send_error(self.status or 404)
            return
        body, start = self.files[path], self.start
        same = handler.headers.get("If-Range", self.headers.get("ETag")) == self.headers.get("ETag")
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send(handler, body, start + 7 if self.wrong_range and start else start)

    def send(self, handler: BaseHTTPRequestHandler, body: bytes, start: int) -> None:
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start + self.extra_length))
        handler.send_header("Content-Type", self.content_type)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            stop = start + self.break_after.pop(0) if self.break_after else len(body)
            handler.wfile.write(body[start:stop])
        handler.close_connection = True
