"""`tlfast serve`: a web page and a REST API for a classifier, on Starlette and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..core.errors import ImageError, UsageError
from ..core.system import count_cores
from ..data import images
from .classifier import Classifier
from .onnx_model import BATCH, Network, predict_batch, rank_classes
from .types import Prediction
from .uploads import FIELD, Limits, impatient, sent_files

PAGE = "page.html"
# The page holds all it needs; nothing is fetched from elsewhere, and no other site may frame it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
STOPPING = 30  # seconds that requests have to be finished in when the server is stopped


@dataclass
class Service:
    """A classifier at work: images of all requests wait in one queue and are run together, those of one size."""

    classifier: Classifier
    token: str = ""
    limits: Limits = field(default_factory=Limits)
    clients: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future]] = asyncio.Queue()
        self.decoding = asyncio.Semaphore(count_cores())

    @contextlib.asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(self.work())
        yield
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker

    async def work(self) -> None:
        """Answer what waits, as much at a time as has come while the network ran."""
        while True:
            waiting = [await self.queue.get()]
            while len(waiting) < BATCH and not self.queue.empty():
                waiting.append(self.queue.get_nowait())
            by_shape: dict[tuple[int, ...], list[tuple[np.ndarray, asyncio.Future]]] = {}
            for pixels, answer in waiting:
                by_shape.setdefault(pixels.shape, []).append((pixels, answer))
            for group in by_shape.values():
                await self.run(group)

    async def run(self, group: Sequence[tuple[np.ndarray, asyncio.Future]]) -> None:
        step = predict_batch(group[0][0])
        for start in range(0, len(group), step):
            part = [(pixels, answer) for pixels, answer in group[start : start + step] if not answer.done()]  # done: its client is gone
            if not part:
                continue
            try:
                rows = await asyncio.to_thread(_to_probabilities, self.classifier.network, [pixels for pixels, _ in part])
            except Exception as error:
                for _, answer in part:
                    answer.done() or answer.set_exception(error)
            else:
                for (_, answer), row in zip(part, rows, strict=True):
                    answer.done() or answer.set_result(row)

    async def predict(self, data: bytes) -> Prediction:
        """Classify an image file's bytes. Raises ImageError."""
        async with self.decoding:
            pixels = await asyncio.to_thread(_decode_upload, data, self.limits.pixels)
        answer = asyncio.get_running_loop().create_future()
        self.queue.put_nowait((pixels, answer))
        return rank_classes(await answer, self.classifier.classes)

    @contextlib.contextmanager
    def admitted(self, request: Request) -> Iterator[None]:
        """Count a request in; refuse it where there are too many."""
        client = request.client.host if request.client else ""
        if self.clients.total() >= self.limits.requests:
            raise HTTPException(503, f"{self.limits.requests} requests are being answered; try again in a moment", {"Retry-After": "1"})
        if self.clients[client] >= self.limits.from_one:
            raise HTTPException(429, f"{self.limits.from_one} requests of yours are being answered; send fewer at once", {"Retry-After": "1"})
        self.clients[client] += 1
        try:
            yield
        finally:
            self.clients[client] -= 1
            if not self.clients[client]:
                del self.clients[client]

    def authorised(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if self.token and not (scheme.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), self.token.encode())):
            raise HTTPException(401, "this server wants its token, as the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


def build_app(service: Service) -> Starlette:
    """Return the ASGI application: the page at `/`, and the API that `/openapi.json` describes."""

    async def page(request: Request) -> Response:
        return HTMLResponse(_read_page(), headers=HEADERS)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def model(request: Request) -> Response:
        service.authorised(request)
        about = {name: value for name, value in service.classifier.info.items() if name != "classes"}
        return JSONResponse({"run": service.classifier.run, "classes": list(service.classifier.classes), "info": about})

    async def predict(request: Request) -> Response:
        service.authorised(request)
        with service.admitted(request):
            top = _parse_top(request, len(service.classifier.classes))
            files = await sent_files(request, service.limits)
            results = await asyncio.gather(*(service.predict(data) for _, data in files), return_exceptions=True)
            answers = [_format_answer(name, result, top) for (name, _), result in zip(files, results, strict=True)]
            return JSONResponse({"run": service.classifier.run, "predictions": answers})

    async def description(request: Request) -> Response:
        return JSONResponse(build_openapi(service))

    async def docs(request: Request) -> Response:
        return HTMLResponse(_render_docs(build_openapi(service)), headers=HEADERS)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"the server failed ({type(error).__name__})"}, 500)

    routes = [
        Route("/", page),
        Route("/healthz", health),
        Route("/model", model),
        Route("/predict", predict, methods=["POST"]),
        Route("/openapi.json", description),
        Route("/docs", docs),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: refused, Exception: failed}, lifespan=service.running)


def serve(classifier: Classifier, host: str, port: int, token: str = "", started: Callable[[str], None] = print) -> None:
    """Serve a classifier until it is told to stop (Ctrl-C, SIGTERM); what has begun is finished. Raises UsageError where the port is taken."""
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    started(f"http://{shown}:{listening.getsockname()[1]}")

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(build_server(Service(classifier, token)).serve([listening]))


def build_server(service: Service) -> uvicorn.Server:
    """Return the server of a service, not yet running."""
    options: dict[str, Any] = {"log_level": "warning", "server_header": False, "timeout_graceful_shutdown": STOPPING}
    return uvicorn.Server(uvicorn.Config(build_app(service), http=impatient(service.limits.seconds), **options))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port} ({error.strerror or error})", "Give another --port (0 takes any that is free) or --host") from None


def _to_probabilities(network: Network, pixels: Sequence[np.ndarray]) -> np.ndarray:
    return network.probabilities(np.stack(pixels))


def _decode_upload(data: bytes, most: int) -> np.ndarray:
    if not data:
        raise ImageError("the file is empty")
    _, (width, height) = images.describe(data)
    if width * height > most:
        raise ImageError(f"{width}x{height} pixels are more than the limit of {most:,}")
    return np.asarray(images.decode(data))


def _format_answer(name: str, result: Prediction | BaseException, top: int) -> dict[str, Any]:
    if isinstance(result, ImageError):
        raise HTTPException(422, f"{name}: {result.message}" if name else result.message)
    if isinstance(result, BaseException):
        raise result
    likely = dict(list(result.probabilities.items())[:top])
    return {"name": name, "label": result.label, "probability": result.probability, "probabilities": likely}


def _parse_top(request: Request, classes: int) -> int:
    value = request.query_params.get("top", str(classes))
    if not value.isascii() or not value.isdigit() or not int(value[:9]):
        raise HTTPException(422, f"top={value[:40]} is not a number from 1 to {classes}")
    return min(int(value[:9]), classes)


def build_openapi(service: Service) -> dict[str, Any]:
    """Return the API's description, by OpenAPI 3.1."""
    limits, classes = service.limits, list(service.classifier.classes)
    number = {"type": "number", "minimum": 0, "maximum": 1}
    prediction = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "label": {"enum": classes},
            "probability": number,
            "probabilities": {"type": "object", "additionalProperties": number},
        },
    }
    answer = {"type": "object", "properties": {"run": {"type": "string"}, "predictions": {"type": "array", "items": prediction}}}
    errors = {
        "401": "the token is missing or wrong",
        "408": f"the request did not arrive within {limits.seconds:g} seconds",
        "413": f"more than {limits.body >> 20} MB or {limits.files} files",
        "415": "neither a form nor an image",
        "422": "an image or a parameter cannot be read",
        "429": f"more than {limits.from_one} requests at once from one address",
        "503": f"more than {limits.requests} requests at once",
    }
    problem = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {FIELD: {"type": "array", "items": binary}}, "required": [FIELD]}
    predict = {
        "summary": f"Classify one or more images: parts '{FIELD}' of a form, or one image as the body",
        "parameters": [{"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1}, "description": "how many classes to give"}],
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": binary}}},
        "responses": {
            "200": {"description": "the likeliest class of each image, and its probabilities", "content": {"application/json": {"schema": answer}}},
            **{code: {"description": meaning, "content": problem} for code, meaning in errors.items()},
        },
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"tlfast: {service.classifier.info.get('task', '')}", "version": service.classifier.info.get("tlfast", "")},
        "paths": {
            "/predict": {"post": predict},
            "/model": {"get": {"summary": "Classes, and what the export says of itself", "responses": {"200": {"description": "run, classes, info"}}}},
            "/healthz": {"get": {"summary": "Whether the server answers", "responses": {"200": {"description": "it does"}}}},
        },
    }
    if service.token:
        described["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        described["security"] = [{"token": []}]
    return described


def _read_page() -> str:
    return (resources.files(__package__) / PAGE).read_text(encoding="utf-8")


def _render_docs(described: dict[str, Any]) -> str:
    """Return the description as a plain page."""
    from html import escape

    rows = []
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            answers = "".join(f"<li><b>{code}</b> {escape(answer['description'])}</li>" for code, answer in about["responses"].items())
            rows.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{escape(about['summary'])}</p><ul>{answers}</ul>")
    style = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    example = "curl -F file=@photo.jpg http://127.0.0.1:8000/predict?top=3"
    title = escape(described["info"]["title"])
    head = f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>{title}</title><style>{style}</style>"
    return f"{head}<h1>{title}</h1><pre>{example}</pre>{''.join(rows)}<p>As OpenAPI: <code>/openapi.json</code></p>"
