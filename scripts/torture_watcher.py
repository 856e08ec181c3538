"""The watcher of `scripts/torture`: whatever has its final name must be complete, at any moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlfast.core import cache, runs
from tlfast.core.errors import RunError

INTERVAL = 0.02  # seconds between two checks


@contextmanager
def watch(folder: Path) -> Iterator[list[str]]:
    """Check the folder repeatedly until the block ends. Yields the list of problems, which grows."""
    problems: list[str] = []
    done = threading.Event()

    def check() -> None:
        problems.extend(problem for problem in find_incomplete(folder) if problem not in problems)

    def check_repeatedly() -> None:
        while not done.wait(INTERVAL):
            try:
                check()
            except FileNotFoundError:  # a folder was removed while it was listed
                continue
            except Exception as error:
                problems.append(f"the watcher failed: {error!r}")
                return

    thread = threading.Thread(target=check_repeatedly, daemon=True)
    thread.start()
    try:
        yield problems
    finally:
        done.set()
        thread.join()
        check()


def find_incomplete(folder: Path) -> list[str]:
    """Return a problem for each run, cache entry or file of predictions that has its final name and is not complete."""
    return [*_check_runs(folder), *_check_cache(folder), *_check_predictions(folder)]


def _check_runs(folder: Path) -> Iterator[str]:
    for manifest in folder.glob("exports/*/*/run.json"):
        if not manifest.parent.name.startswith("."):
            try:
                runs.verify(runs.read_run(manifest.parent))
            except RunError as error:
                yield error.message


def _check_cache(folder: Path) -> Iterator[str]:
    for about in folder.glob("cache/*/*/about.json"):
        if cache.NAME.fullmatch(about.parent.name):
            sizes = json.loads(about.read_text())["files"]
            yield from (f"{about.parent / name} is cut off" for name, size in sizes.items() if (about.parent / name).stat().st_size != size)


def _check_predictions(folder: Path) -> Iterator[str]:
    for answers in folder.glob("answers.csv"):
        if not answers.read_text().endswith("\n"):
            yield f"{answers} is cut off"
