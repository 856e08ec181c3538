"""A server of `tlfast serve` in a thread, and requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

from tlfast.inference import server as server_module

IMAGE = {"Content-Type": "image/png"}


@contextmanager
def serving_at(classifier, **options):
    """Run a server in a thread; yields (port, server)."""
    listening = socket.create_server(("127.0.0.1", 0))
    service = server_module.Service(classifier, **options)
    server = server_module.build_server(service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


def ask(port, method="GET", path="/", body=None, headers=None):
    """Send one request; return the status and the answer, parsed if it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if "json" in response.getheader("content-type", "") else text.decode()
