"""Fixtures: images drawn by the tests, and commands run in this process."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from tlfast.core.system import hide_known_warnings

hide_known_warnings()


def pytest_configure() -> None:
    """Keep each of several test processes to cores of its own: two that both use all of them slow each other tenfold."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % len(cores) :: count])


ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TINY = ["--arch", "test_resnet", "--weights", "none", "--size", "32", "--bs", "8", "--lr", "3e-3"]


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    """Draw a disc of a colour somewhere on a noisy ground: easy to tell apart, never twice the same."""
    rng = random.Random(seed)
    image = Image.frombytes("L", size, bytes(rng.randrange(96, 160) for _ in range(size[0] * size[1]))).convert("RGB")
    x, y, r = rng.randint(10, size[0] - 10), rng.randint(10, size[1] - 10), rng.randint(5, 9)
    ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


COLOURS = {"blue": (20, 40, 230), "green": (20, 200, 40), "red": (230, 30, 30)}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test keeps meets another test, or the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TLFAST_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 12 images each: `pictures/{blue,green,red}/<n>.png`."""
    root = tmp_path / "pictures"
    for label, colour in COLOURS.items():
        for n in range(12):
            draw(root / label / f"{n}.png", colour, n)
    return root


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in an empty folder: `cli("train", "digits")` gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)

    def run(*arguments: object) -> Outcome:
        from tlfast.cli.app import app

        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights; the test is skipped where it is not there."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared here")
    return SHARED
