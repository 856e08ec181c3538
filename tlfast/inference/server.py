"""`tlfast serve`: a web page and a REST API for a classifier, on Starlette and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from ..core import ImageError, UsageError
from ..core.errors import first_line
from ..core.signals import defer_interrupts
from ..core.system import count_cores
from ..data import images
from .batching import BatchQueue, MemoryBudget
from .classifier import Classifier
from .host_check import HostCheck
from .onnx_model import rank_classes
from .openapi import build_openapi, render_docs
from .request_log import JsonHandler, RequestLog, is_not_cancellation
from .service_metrics import ServiceMetrics
from .types import Prediction
from .uploads import Limits, build_protocol, count_body_bytes, read_files

PAGE = "page.html"
# The page is self-contained: it loads nothing from other servers, and no other site may embed it.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PATHS = ("/", "/health", "/healthz", "/metrics", "/model", "/predict", "/openapi.json", "/docs")
RETRY = {"Retry-After": "1"}
SHUTDOWN_SECONDS = 30  # for requests in progress
# Bytes for each pixel during decoding, by Pillow mode: the image, a copy in RGB, and the array; with transparency two more copies.
DECODING_BYTES = {"1": 8, "L": 8, "RGB": 8, "CMYK": 12, "YCbCr": 12, "P": 20, "LA": 20, "RGBA": 20}
MAX_DECODING_BYTES = 28  # deep grey values are scaled in float64
POLLED_SECONDS = 0.2  # between checks whether the cell of a notebook was interrupted


@dataclass
class Service:
    """A classifier for concurrent requests.

    Attributes:
        classifier: the classifier.
        token: bearer token that requests need; "" for none.
        hosts: host names that requests may have; empty for any.
        root_path: path of the service behind a proxy, such as "/plants"; all addresses work with and without it.
        log: receives a line of JSON for each request; None for no log.
        limits: limits of requests.
        clients: number of requests in progress per address.
        stopping: set when the server starts to stop.
    """

    classifier: Classifier
    token: str = ""
    root_path: str = ""
    hosts: frozenset[str] = frozenset()
    log: Callable[[str], object] | None = None
    limits: Limits = field(default_factory=Limits)
    clients: Counter[str] = field(default_factory=Counter)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            raise UsageError(f"--root-path {self.root_path}: not a path such as /plants", "Start it with / and end it without")
        self.queue = BatchQueue(self.classifier.network)
        self.decoding = asyncio.Semaphore(count_cores())
        self.memory, self.bodies = MemoryBudget(), MemoryBudget()  # of images from decoding to prediction, and of request bodies
        paths = frozenset(path for known in PATHS for path in (known, self.root_path + known))
        self.metrics = ServiceMetrics(self.classifier, paths, self.clients.total)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the batch queue while the application runs."""
        async with self.queue.running():
            yield

    async def predict(self, data: bytes) -> Prediction:
        """Classify the bytes of an image file. Raises ImageError."""
        async with self.decoding:
            size = await asyncio.to_thread(_measure_upload, data, self.limits.pixels)
        async with self.memory.reserve(size) as keep:
            async with self.decoding:
                pixels = await asyncio.to_thread(_decode_upload, data)
            keep(pixels.nbytes)
            probabilities = await self.queue.predict(pixels)
        prediction = rank_classes(probabilities, self.classifier.classes)
        self.metrics.count_image(prediction.label)
        return prediction

    @contextlib.contextmanager
    def admit(self, request: Request) -> Iterator[None]:
        """Count a request as in progress during the block. Raises HTTPException (503 or 429) above the limits."""
        client = request.client.host if request.client else ""
        if self.clients.total() >= self.limits.requests:
            raise HTTPException(503, f"{self.limits.requests} requests are in progress; try again later", RETRY)
        if self.clients[client] >= self.limits.per_client:
            raise HTTPException(429, f"{self.limits.per_client} requests from your address are in progress; send fewer at once", RETRY)
        self.clients[client] += 1
        try:
            yield
        finally:
            self.clients[client] -= 1
            if not self.clients[client]:
                del self.clients[client]

    def authorize(self, request: Request) -> None:
        """Check the bearer token of a request. Raises HTTPException (401)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if self.token and not (scheme.lower() == "bearer" and hmac.compare_digest(token.encode("latin-1"), self.token.encode())):
            raise HTTPException(401, "the token is missing or wrong; send the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    def describe(self) -> dict[str, Any]:
        """Return the OpenAPI description of the service."""
        return build_openapi(self.classifier, self.limits, bool(self.token), self.root_path)


def build_app(service: Service) -> Starlette:
    """Return the ASGI application: the page at `/`, and the API described at `/openapi.json`."""
    classifier = service.classifier

    async def page(request: Request) -> Response:
        return HTMLResponse(_read_page(), headers=HEADERS)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        service.authorize(request)
        return Response(service.metrics.render(), media_type=service.metrics.content_type)

    async def model(request: Request) -> Response:
        service.authorize(request)
        info = {name: value for name, value in classifier.info.items() if name != "classes"}
        return JSONResponse({"run": classifier.run, "classes": list(classifier.classes), "info": info})

    async def predict(request: Request) -> Response:
        service.authorize(request)
        with service.admit(request):
            top = _parse_top(request, len(classifier.classes))
            async with service.bodies.reserve(count_body_bytes(request, service.limits)):
                files = await read_files(request, service.limits, service.stopping)
                results = await asyncio.gather(*(service.predict(data) for _, data in files), return_exceptions=True)
            predictions = [_format_prediction(name, result, top) for (name, _), result in zip(files, results, strict=True)]
            return JSONResponse({"run": classifier.run, "predictions": predictions})

    async def openapi(request: Request) -> Response:
        return JSONResponse(service.describe())

    async def docs(request: Request) -> Response:
        return HTMLResponse(render_docs(service.describe(), f"{request.url.scheme}://{request.url.netloc}{service.root_path}"), headers=HEADERS)

    routes: list[BaseRoute] = [
        Route("/", page),
        Route("/health", health),
        Route("/healthz", health),
        Route("/metrics", metrics),
        Route("/model", model),
        Route("/predict", predict, methods=["POST"]),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
    ]
    if service.root_path:  # a proxy may remove it from the path, or not
        routes.append(Mount(service.root_path, routes=list(routes)))
    middleware = [Middleware(RequestLog, write=service.log, count=service.metrics.count_request), Middleware(HostCheck, hosts=service.hosts)]
    handlers: dict[Any, Any] = {HTTPException: _respond_refused, Exception: _respond_failed}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=middleware, lifespan=service.lifespan)


async def _respond_refused(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _respond_failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"internal server error ({type(error).__name__})"}, 500)


def serve(service: Service, host: str, port: int, started: Callable[[str], None] = print) -> None:
    """Serve a classifier until Ctrl-C or SIGTERM. Requests in progress are completed, if their bodies arrive soon.

    `started` receives the URL of the server. Raises UsageError if the address cannot be used.
    """
    with _listen(host, port) as listener:
        url_host = f"[{host}]" if ":" in host else host  # IPv6
        started(f"http://{url_host}:{listener.getsockname()[1]}")
        if service.log:
            logging.basicConfig(format="%(message)s", handlers=[JsonHandler(service.log)], force=True)
        _run_until_stopped(build_server(service), listener)


def _run_until_stopped(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run a server until Ctrl-C or SIGTERM: in a thread where an event loop runs already, as in a cell of a notebook."""

    def run() -> None:
        asyncio.run(server.serve([listener]))

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with contextlib.suppress(KeyboardInterrupt):
            run()
        return
    with contextlib.suppress(KeyboardInterrupt), defer_interrupts() as interrupted, ThreadPoolExecutor(1) as executor:
        served = executor.submit(run)
        try:
            while not (interrupted() or served.done()):
                wait([served], POLLED_SECONDS)
        finally:
            server.should_exit = True
        served.result()


def build_server(service: Service) -> uvicorn.Server:
    """Return the server of a service, not started."""

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.stopping.set()
            await super().shutdown(sockets)
            if self.force_exit:  # by a second Ctrl-C, after which uvicorn does not shut the application down, and Starlette reports an error
                await self.lifespan.shutdown()

    logging.getLogger("uvicorn.error").addFilter(is_not_cancellation)
    options: dict[str, Any] = {"log_level": "warning", "server_header": False, "timeout_graceful_shutdown": SHUTDOWN_SECONDS}
    if service.log:
        options["log_config"] = None  # its messages go to the handlers of `serve`
    return Server(uvicorn.Config(build_app(service), http=build_protocol(service.limits.seconds), **options))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with an empty part
        problem = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise UsageError(f"cannot listen on {host}:{port} ({problem})", "Give another --port (0 selects a free one) or another --host") from None


def _measure_upload(data: bytes, max_pixels: int) -> int:
    """Return about how many bytes the decoding of an image file takes, from its header. Raises ImageError."""
    if not data:
        raise ImageError("the file is empty")
    mode, (width, height) = images.describe(data)
    if width * height > max_pixels:
        raise ImageError(f"{width}x{height} pixels exceed the limit of {max_pixels:,}")
    return width * height * DECODING_BYTES.get(mode, MAX_DECODING_BYTES)


def _decode_upload(data: bytes) -> np.ndarray:
    """Decode an image file to uint8 RGB `[h, w, 3]`. Raises ImageError."""
    return np.asarray(images.decode(data))


def _format_prediction(name: str, result: Prediction | BaseException, top: int) -> dict[str, Any]:
    if isinstance(result, ImageError):
        raise HTTPException(422, f"{name}: {result.message}" if name else result.message)
    if isinstance(result, BaseException):
        raise result
    probabilities = dict(list(result.probabilities.items())[:top])
    return {"name": name, "label": result.label, "probability": result.probability, "probabilities": probabilities}


def _parse_top(request: Request, classes: int) -> int:
    """Return the query parameter `top`, at most the number of classes."""
    value = request.query_params.get("top", str(classes))
    if not value.isascii() or not value.isdigit() or not int(value[:9]):
        raise HTTPException(422, f"top={value[:40]} is not a number from 1 to {classes}")
    return min(int(value[:9]), classes)


def _read_page() -> str:
    return (resources.files(__package__) / PAGE).read_text(encoding="utf-8")
