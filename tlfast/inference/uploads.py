"""Read the images of a request to `tlfast serve`, within limits of size, number and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.auto import AutoHTTPProtocol

FIELD = "file"
MAX_HEADER_BYTES = 64 << 10
MAX_NAME = 255  # characters of a file name
STOPPING_SECONDS = 2.0  # for the bodies of requests in progress when the server stops
DRAIN_SECONDS = 0.5  # how long the rest of a refused body is read; closing a connection with unread bytes resets it, and the client loses the response


@dataclass(frozen=True)
class Limits:
    """Limits of a request, and of all requests together."""

    body: int = 32 << 20  # bytes
    files: int = 32
    pixels: int = 50_000_000  # per image
    seconds: float = 20.0  # for the headers to arrive, and again for the body
    requests: int = 256  # in progress
    per_client: int = 64  # in progress, from one address


def build_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with a time limit and a size limit for request headers; uvicorn has neither.

    A request over the limits gets status 408 or 431, and its connection is closed.
    """

    class LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn selects the base class at run time
        timer: asyncio.TimerHandle | None = None
        header_bytes = 0  # received of incomplete headers

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.time_out)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.header_bytes = 0 if self.is_responding() else self.header_bytes + len(data)
            if self.is_responding():
                self.stop_timer()
            elif self.header_bytes > MAX_HEADER_BYTES:
                self.refuse("431 Request Header Fields Too Large", f"the request headers are larger than {MAX_HEADER_BYTES >> 10} KB")
            elif not self.timer:  # the next request of a keep-alive connection
                self.timer = self.loop.call_later(seconds, self.time_out)

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_timer()
            super().connection_lost(exc)

        def is_responding(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def stop_timer(self) -> None:
            if self.timer:
                self.timer.cancel()
            self.timer = None

        def time_out(self) -> None:
            self.refuse("408 Request Timeout", f"the request headers did not arrive within {seconds:g} seconds")

        def refuse(self, status: str, reason: str) -> None:
            if not self.transport.is_closing():
                body = f'{{"error": "{reason}"}}'
                head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
                self.transport.write((head + body).encode())
                self.transport.close()

    return LimitedProtocol


def count_body_bytes(request: Request, limits: Limits) -> int:
    """Return how many bytes of the body of a request are kept: its announced size, else the limit; 0 if it is larger, because it is refused."""
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isdigit() else limits.body
    return size if size <= limits.body else 0


async def read_files(request: Request, limits: Limits, stopping: asyncio.Event) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of each uploaded file: the parts `file` of a form, or the request body, without a name. Raises HTTPException.

    Once `stopping` is set, a body has STOPPING_SECONDS to arrive.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = content_type == "multipart/form-data"
    if not is_form and not content_type.startswith("image/") and content_type != "application/octet-stream":
        ways = f"send a form (multipart/form-data) with images in the field '{FIELD}', or one image as the body with its type, such as image/jpeg"
        raise HTTPException(415, f"the content type is '{content_type[:80]}'; {ways}")
    body = await _read_body(request, limits, stopping)
    if not body:
        raise HTTPException(422, "the request body is empty; send an image")
    return await _parse_form(request, body, limits) if is_form else [("", body)]


async def _read_body(request: Request, limits: Limits, stopping: asyncio.Event) -> bytes:
    announced = request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"the request is larger than the limit of {limits.body >> 20} MB", {"Connection": "close"})
    if announced.isdigit() and int(announced) > limits.body:
        await _drain(request)
        raise too_large

    async def read() -> bytes:
        blocks, size = [], 0
        async for block in request.stream():
            size += len(block)
            if size > limits.body:
                await _drain(request)
                raise too_large
            blocks.append(block)
        return b"".join(blocks)

    reading, stopped = asyncio.ensure_future(read()), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({reading, stopped}, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            await asyncio.wait({reading}, timeout=STOPPING_SECONDS)
        if reading.done():
            return reading.result()
        if stopped.done():
            raise HTTPException(503, "the server is stopping", {"Connection": "close"})
        raise HTTPException(408, f"the request body did not arrive within {limits.seconds:g} seconds", {"Connection": "close"})
    except ClientDisconnect:
        raise HTTPException(400, "the client closed the connection before the end of the request") from None
    finally:
        reading.cancel()
        stopped.cancel()


async def _drain(request: Request) -> None:
    """Read and discard the rest of a body. A client that sent `Expect: 100-continue` has not started to send it."""

    async def discard() -> None:
        while (await request.receive()).get("more_body"):
            pass

    if "expect" not in request.headers:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(discard(), DRAIN_SECONDS)


async def _parse_form(request: Request, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=limits.files, max_fields=limits.files)  # type: ignore[arg-type]  # any async iterator works
    parser.spool_max_size = len(body) + 1  # bytes up to which a part stays in memory: nothing is written to the disk
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(413, f"the form has more files than the limit of {limits.files}") from None
        raise HTTPException(422, f"the form cannot be parsed ({error.message})") from None
    except Exception as error:  # KeyError or AssertionError on some malformed part headers
        raise HTTPException(422, f"the form cannot be parsed ({type(error).__name__})") from None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        files = [part for name, part in form.multi_items() if name == FIELD and not isinstance(part, str)]
        if not files:
            if FIELD in form:
                raise HTTPException(422, f"the field '{FIELD}' is text; send it as a file, with a file name")
            fields = ", ".join(sorted({name[:40] for name, _ in form.multi_items()})) or "none, or the form is incomplete"
            raise HTTPException(422, f"the form has no file in the field '{FIELD}' (its fields: {fields})")
        return [((part.filename or "")[:MAX_NAME], await part.read()) for part in files]
