"""Fixtures: drawn images, commands run in this process, a small classifier, a browser."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.helpers.browser import CHROMIUM
from tests.helpers.command_line import invoke
from tests.helpers.paths import SHARED
from tests.helpers.web import Web
from tlfast.core.system import hide_known_warnings
from tlfast.tasks import registry
from tlfast.testing import draw_classes

hide_known_warnings()
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20}
# Variables of the user, which must have no effect on tests.
USERS = ("TLFAST_WEIGHTS", "TLFAST_TOKEN", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "RAY_ADDRESS", "FORWARDED_ALLOW_IPS")


def pytest_configure() -> None:
    """Leave the user's environment out. Give each test process cores of its own: two processes that both use all cores slow each other tenfold."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % len(cores) :: count])
    for name in USERS:
        os.environ.pop(name, None)
    os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "tlfast-tests-without-hub")  # not the user's cache of the hub


@pytest.hookimpl(trylast=True)  # after the random order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with slow tests first: a slow test at the end would leave the other processes without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TLFAST_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Handle Ctrl-C as in a terminal: a shell makes a process in the background, such as a whole test run, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the tasks that a test registers when it ends."""
    monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `folder`, drawn once for each test process. Read only."""
    return draw_classes(tmp_path_factory.mktemp("drawn") / "pictures")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 12 images each: `pictures/{blue,green,red}/<n>.png`."""
    return draw_classes(tmp_path / "pictures")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in an empty folder: `cli("train", "digits")` returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    return invoke


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, pictures: Path):
    """A partial and a full run on drawn images, made once for each test process. Read only: `copy_run` of tests.helpers.runs copies one."""
    from tests.helpers.runs import TrainedRun, train_in

    root = tmp_path_factory.mktemp("trained")
    full = train_in(root, pictures, "f", "--full", "--epochs", 2, "--freeze-epochs", 1)
    return TrainedRun(pictures, train_in(root, pictures, "r", "--epochs", 2), full)


@pytest.fixture
def run(cli, trained_run, tmp_path: Path):
    """A copy of the partial run, named "r" of task `pictures`, in the current folder's exports."""
    from tests.helpers.runs import copy_run
    from tlfast.core import runs

    copy_run(trained_run.partial, tmp_path)
    return runs.find("r")


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images of the task `digits`, and a small run on them, made once for each test process. Read only."""
    from tests.helpers.documented import train_digits

    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def model_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty stand-in for the Hugging Face hub, which this test and its processes use."""
    from tests.helpers.hub import running_hub, use_hub

    with running_hub() as hub:
        use_hub(monkeypatch, hub, tmp_path / "huggingface")
        yield hub


@pytest.fixture(scope="session")
def digits_hub(tmp_path_factory: pytest.TempPathFactory, digits_root: Path):
    """A stand-in for the hub with the run of `digits_root` as `me/digits`."""
    from tests.helpers.hub import running_hub, use_hub
    from tlfast.commands.push import push_run
    from tlfast.core import runs

    with running_hub() as hub:
        with pytest.MonkeyPatch.context() as patch:
            use_hub(patch, hub, tmp_path_factory.mktemp("huggingface"))
            push_run(runs.read_run(digits_root / "exports" / "digits" / "first"), "me/digits")
        yield hub


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_root: Path, pictures: Path, digits_hub) -> Path:
    """The current folder of documented commands: images, downloads and a run of `digits`. Downloads, servers and the hub are replaced."""
    from tests.helpers.documented import fill_workspace, replace_endless
    from tests.helpers.hub import use_hub

    use_hub(monkeypatch, digits_hub, tmp_path / "huggingface")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    replace_endless(monkeypatch)
    return fill_workspace(tmp_path, digits_root, pictures)


@pytest.fixture(scope="session")
def documented_folder(tmp_path_factory: pytest.TempPathFactory, digits_root: Path, pictures: Path) -> Path:
    """The folder of `shared_workspace`, one for each test process."""
    from tests.helpers.documented import fill_workspace

    return fill_workspace(tmp_path_factory.mktemp("documented"), digits_root, pictures)


@pytest.fixture
def shared_workspace(documented_folder: Path, monkeypatch: pytest.MonkeyPatch, digits_hub) -> Path:
    """As `workspace`, but the same folder and cache for all tests of a process."""
    from tests.helpers.documented import replace_endless
    from tests.helpers.hub import use_hub

    use_hub(monkeypatch, digits_hub, documented_folder / "huggingface")
    monkeypatch.chdir(documented_folder)
    monkeypatch.setenv("TLFAST_CACHE", str(documented_folder / "cache"))
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    replace_endless(monkeypatch)
    return documented_folder


@pytest.fixture
def make(folder: Path, tmp_path: Path):
    """Train a tiny network on the drawn folder, without ONNX unless asked for: `make("full", seed=1)`."""
    from tests.helpers.training import resolved
    from tlfast.commands import train

    def run(strategy="partial", on_event=lambda event: None, **flags):
        return train.train_run(*resolved(folder, strategy, **{"out": str(tmp_path / "out"), "onnx": False, **flags}), on_event)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; the test is skipped where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared here")
    return SHARED


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory):
    """An untrained classifier of ants, bees and cats."""
    import torch

    from tlfast import tasks
    from tlfast.data.types import Preprocessing
    from tlfast.export import metadata, onnx
    from tlfast.inference.classifier import Classifier
    from tlfast.inference.onnx_model import open_network
    from tlfast.models import build
    from tlfast.tasks import resolve

    folder = tmp_path_factory.mktemp("model")
    chosen = resolve.resolve_settings(tasks.folder_task(folder), None, {"arch": "test_resnet", "size": 32, "weights": "none"})
    torch.manual_seed(3)
    about = metadata.describe_model(chosen, ["ant", "bee", "cat"], "r", "none", "none: not pretrained")
    onnx.export_onnx(folder / "model.onnx", build.build_model("test_resnet", 3, 32), Preprocessing.from_settings(chosen, ((0.5,) * 3, (0.2,) * 3)), about)
    return Classifier(open_network(folder / "model.onnx"), "r")


@pytest.fixture(scope="module")  # its event loop must not stay open for other modules
def browser():
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("axe_playwright_python.sync_playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A local web server; downloads from it do not wait between attempts."""
    from tlfast.data import download

    site = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(download, "PAUSE", 0.0)
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of one node on this machine, with one core."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)
    found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield found
    ray.shutdown()
    found.shutdown()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def remove_node(cluster: Any) -> Iterator[Callable[[], None]]:
    """Add a second node for the test. Returns a function that removes it."""
    node = cluster.add_node(**NODE)
    yield lambda: cluster.remove_node(node)
    with suppress(Exception):  # the test has removed it
        cluster.remove_node(node)
