"""`tlfast data check`: what a task's images are, before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from . import cache, images
from .data.sources import locate
from .data.table import each_image, load_table, signature
from .errors import ImageError
from .results import DataSummary, OnEvent, Unreadable, ignore
from .settings import Settings, Task

BAD = "\0"  # marks the reason of an image that cannot be read, apart from "mode size"


def check(task: Task, settings: Settings, on_event: OnEvent = ignore) -> DataSummary:
    """Count images by class and part, by size and by mode; name every one that cannot be read. Raises DataError for unusable data."""
    table = load_table(task, settings, locate(task, settings.data))
    paths = [row.path for row in table.rows]
    name = cache.key(layout=1, images=signature(paths))
    seen = cache.remembered("checks", name, lambda: _looks(paths, on_event))
    bad = [Unreadable(path, reason) for path, reason in seen["unreadable"].items()]
    return replace(table.summary(), unreadable=bad, modes=seen["modes"], sizes=seen["sizes"])


def _looks(paths: list[str], on_event: OnEvent) -> dict[str, Any]:
    """Look at every image: the reasons of those that cannot be read by path, and how many of the others have each mode and size."""
    found = list(each_image(paths, _look, "checking images", on_event))
    good = [seen.split() for seen in found if not seen.startswith(BAD)]
    modes, sizes = Counter(mode for mode, _ in good), Counter(size for _, size in good)
    bad = {path: seen[1:] for path, seen in zip(paths, found, strict=True) if seen.startswith(BAD)}
    return {"unreadable": bad, "modes": dict(modes.most_common()), "sizes": dict(sizes.most_common())}


def _look(path: str) -> str:
    """Return "mode widthxheight" of an image that opens, else the reason why not, marked."""
    try:
        data = images.read_bytes(path)
        images.decode(data)
        mode, (width, height) = images.describe(data)
    except ImageError as error:
        return BAD + error.message
    return f"{mode} {width}x{height}"
