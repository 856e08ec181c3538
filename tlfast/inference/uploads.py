"""What a request may send to `tlfast serve`: how much, how slowly, and in which form."""

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
LARGEST_HEAD = 64 << 10  # bytes of a request's head
LINGER = 0.5  # seconds that the rest of a refused body is taken in for: a connection closed on unread bytes is reset, and the answer lost with it


@dataclass(frozen=True)
class Limits:
    """What a request, and all of them together, may ask for."""

    body: int = 32 << 20  # bytes
    files: int = 32
    pixels: int = 50_000_000  # of an image
    seconds: float = 20.0  # for a request's head to arrive, and again for its body
    requests: int = 256  # that are answered at once
    from_one: int = 64  # of them from one address


def impatient(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a limit to how long a request's head may take: its own waits for ever (a body is waited for in `_body`)."""

    class Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        clock: asyncio.TimerHandle | None = None
        waiting_for = 0  # bytes of a head that has not ended yet

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.clock = self.loop.call_later(seconds, self.hang_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.waiting_for = 0 if self.answering() else self.waiting_for + len(data)
            if self.answering():
                self.stop_clock()
            elif self.waiting_for > LARGEST_HEAD:
                self.refuse("431 Request Header Fields Too Large", f"the head of the request is larger than {LARGEST_HEAD >> 10} KB")
            elif not self.clock:  # a further request on the same connection has begun
                self.clock = self.loop.call_later(seconds, self.hang_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_clock()
            super().connection_lost(exc)

        def answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def stop_clock(self) -> None:
            if self.clock:
                self.clock.cancel()
            self.clock = None

        def hang_up(self) -> None:
            self.refuse("408 Request Timeout", f"the head of the request did not arrive within {seconds:g} seconds")

        def refuse(self, status: str, reason: str) -> None:
            if not self.transport.is_closing():
                body = f'{{"error": "{reason}"}}'
                head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
                self.transport.write((head + body).encode())
                self.transport.close()

    return Impatient


async def sent_files(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Return (name, bytes) of each file of a request: the parts `file` of a form, or the body itself. Raises HTTPException."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/") and kind != "application/octet-stream":
        raise HTTPException(415, f"the content type is '{kind[:80]}'; send a form (multipart/form-data) with images as '{FIELD}', or one image as the body")
    body = await _body(request, limits)
    if not body:
        raise HTTPException(422, "the request is empty; send an image")
    return await _parts(request, body, limits) if kind == "multipart/form-data" else [("", body)]


async def _body(request: Request, limits: Limits) -> bytes:
    said = request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"more than the limit of {limits.body >> 20} MB", {"Connection": "close"})
    if said.isdigit() and int(said) > limits.body:
        await _take_in(request)
        raise too_large

    async def read() -> bytes:
        blocks, size = [], 0
        async for block in request.stream():
            size += len(block)
            if size > limits.body:
                await _take_in(request)
                raise too_large
            blocks.append(block)
        return b"".join(blocks)

    try:
        return await asyncio.wait_for(read(), limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {limits.seconds:g} seconds", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the request was broken off") from None


async def _take_in(request: Request) -> None:
    """Receive and forget what still comes of a body; nothing where the sender waits to be asked for it."""

    async def forget() -> None:
        while (await request.receive()).get("more_body"):
            pass

    if "expect" not in request.headers:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(forget(), LINGER)


async def _parts(request: Request, body: bytes, limits: Limits) -> list[tuple[str, bytes]]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=limits.files, max_fields=limits.files).parse()  # type: ignore[arg-type]
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(413, f"more than the limit of {limits.files} files") from None
        raise HTTPException(422, f"a form that cannot be read ({error.message})") from None
    except Exception as error:  # the parser meets some malformed heads with KeyError or AssertionError
        raise HTTPException(422, f"a form that cannot be read ({type(error).__name__})") from None
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        files = [part for name, part in form.multi_items() if name == FIELD and not isinstance(part, str)]
        if not files:
            if FIELD in form:
                raise HTTPException(422, f"the field '{FIELD}' is text; send it as a file, with a file name")
            found = ", ".join(sorted({name[:40] for name, _ in form.multi_items()})) or "none, or the form was cut off"
            raise HTTPException(422, f"the form has no file in the field '{FIELD}' (its fields: {found})")
        return [((part.filename or "")[:255], await part.read()) for part in files]
