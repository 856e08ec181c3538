from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
from safetensors.torch import save

from tlfast.core.errors import UsageError
from tlfast.models import pretrained


def test_order_of_resolution(tmp_path, monkeypatch):
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    given = tmp_path / "given.safetensors"
    given.touch()
    (tmp_path / "resnet50.safetensors").touch()
    assert pretrained.find_weights("resnet50", "auto").kind == "hub"
    monkeypatch.setenv("TLFAST_WEIGHTS", str(tmp_path))
    found = pretrained.find_weights("resnet50", "auto")
    assert (found.kind, found.path) == ("folder", str(tmp_path / "resnet50.safetensors"))
    assert pretrained.find_weights("resnet18", "auto").kind == "hub"
    assert pretrained.find_weights("resnet50", str(given)).path == str(given)
    assert pretrained.find_weights("resnet50", "none").kind == "none"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"--weights none.pth: no such file"):
        pretrained.find_weights("resnet50", "none.pth")
    with pytest.raises(UsageError, match="a folder, not a file") as caught:
        pretrained.find_weights("resnet50", str(tmp_path))
    assert "TLFAST_WEIGHTS" in caught.value.hint
    (tmp_path / "w.txt").touch()
    with pytest.raises(UsageError, match=r"'.txt' is not a weights file"):
        pretrained.find_weights("resnet50", str(tmp_path / "w.txt"))


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("TLFAST_WEIGHTS", "/no/such/place")
    with pytest.raises(UsageError, match="TLFAST_WEIGHTS is '/no/such/place', which is not a folder"):
        pretrained.find_weights("resnet50", "auto")


def test_the_ways_out_are_three():
    hint = pretrained.suggest_sources("resnet50")
    assert "--weights FILE" in hint and "TLFAST_WEIGHTS" in hint and "tlfast[embedded]" in hint


CODE = """
import sys, json
from tlfast.core.errors import TlfastError
from tlfast.models import build, pretrained, weights
try:
    body = build.build_body(pretrained.find_weights("test_resnet", "auto"), 32)
    print(weights.hash_weights(body))
except TlfastError as error:
    print("error:", error.message, "|", error.hint)
"""


@pytest.fixture(scope="module")
def weights() -> tuple[bytes, str]:
    """A file such as the hub has for test_resnet, and the fingerprint of the body in it."""
    from tlfast.models.weights import hash_weights

    cfg = timm.get_pretrained_cfg("test_resnet")
    model = timm.create_model("test_resnet", num_classes=cfg.num_classes)
    data = save(model.state_dict())
    model.reset_classifier(0)
    return data, hash_weights(model)


@pytest.fixture
def hub(weights) -> Iterator[str]:
    data, _ = weights

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(False)

        def do_GET(self) -> None:
            self.answer(True)

        def answer(self, body: bool) -> None:
            found = self.path.endswith("/model.safetensors")
            content = data if found else b"not here"
            self.send_response(200 if found else 404)
            if found:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run(endpoint: str, cache) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("TLFAST_WEIGHTS", "HF_HUB_OFFLINE")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, env=environment, timeout=120)
    return done.stdout.strip() or done.stderr


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, weights, tmp_path):
    assert run(hub, tmp_path) == weights[1]
    assert run("http://127.0.0.1:9", tmp_path) == weights[1]


def test_no_hub_names_the_ways_out(tmp_path):
    said = run("http://127.0.0.1:9", tmp_path)
    assert said.startswith("error: no weights for 'test_resnet': the hub cannot be reached")
    assert "--weights FILE" in said and "TLFAST_WEIGHTS" in said and "--arch tf_efficientnet_lite0" in said
