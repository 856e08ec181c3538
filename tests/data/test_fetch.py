"""Images from addresses: what is fetched, and what is refused with which reason."""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from tlfast.core.errors import ImageError
from tlfast.data import fetch


@pytest.fixture
def server():
    """A local web server; `server("/name")` is an address on it."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/away":
                return self.answer(302, b"", Location="/red.png")
            if self.path == "/round":
                return self.answer(302, b"", Location="/round")
            if self.path == "/file":
                return self.answer(302, b"", Location="file:///etc/passwd")
            if self.path == "/missing":
                return self.answer(404, b"no")
            if self.path == "/large":
                return self.answer(200, b"x" * 300_000)
            if self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                try:
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                except OSError:
                    pass
                return None
            if self.path == "/slow-headers":
                with suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                    for _ in range(100):
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                return None
            return self.answer(200, picture.getvalue())

        def answer(self, status, body, **headers):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield lambda path: f"http://127.0.0.1:{running.server_port}{path}"
    running.shutdown()
    running.server_close()


def test_fetched_and_redirected(server):
    assert fetch.fetch(server("/red.png"), allow_private=True) == fetch.fetch(server("/away"), allow_private=True)
    assert Image.open(io.BytesIO(fetch.fetch(server("/red.png?size=8"), allow_private=True))).size == (8, 8)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "the server answered 404"),
        ("/round", "more than 5 redirects"),
        ("/file", "not an http(s) URL"),
        ("/large", "more than 0 MB"),
        ("/slow", "took too long"),
        ("/slow-headers", "took too long"),
    ],
)
def test_refused_with_a_reason(server, path, reason):
    started = time.monotonic()
    with pytest.raises(ImageError) as error:
        fetch.fetch(server(path), allow_private=True, seconds=1, limit=200_000)
    assert reason in error.value.message and time.monotonic() - started < 4


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433"]
)
def test_private_addresses_are_refused_before_anything_is_sent(host, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *arguments: pytest.fail("connected"))
    with pytest.raises(ImageError, match="is inside a private network|cannot be fetched"):
        fetch.fetch(f"http://{host}:9/x.png")


def test_a_name_that_points_inside_is_refused_however_it_is_spelt(server, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("192.168.7.7", 80))])
    with pytest.raises(ImageError, match=r"example.org \(192.168.7.7\) is inside a private network"):
        fetch.fetch("http://example.org/x.png")


@pytest.mark.parametrize("address", ["http://", "http://a b/", "http://x:99999/", "http://nowhere.invalid/x.png"])
def test_odd_addresses(address):
    with pytest.raises(ImageError):
        fetch.fetch(address)


def test_the_next_address_of_a_host_is_tried(server, monkeypatch):
    host = "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(10, 1, 6, "", ("::1", 0, 0, 0)), (2, 1, 6, "", (host, 0))])
    tried = []

    def connect_to(address, timeout):
        tried.append(address[0])
        if address[0] == "::1":
            raise ConnectionRefusedError
        connected = socket.socket()
        connected.connect(address)
        return connected

    monkeypatch.setattr(socket, "create_connection", connect_to)
    assert fetch.fetch(server("/red.png"), allow_private=True) and tried == ["::1", host]


def test_other_characters_than_those_of_a_url_are_encoded(server):
    assert fetch.fetch(server("/\u00e9 b.png?size=\u00fc"), allow_private=True).startswith(b"\x89PNG")
