"""`tlfast data check`: what a task's images are, before anything is trained on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from . import images
from .data.sources import locate
from .data.table import each_image, load_table
from .errors import ImageError
from .results import DataSummary, OnEvent, Unreadable, ignore
from .settings import Settings, Task

BAD = "\0"  # marks the reason of an image that cannot be read, apart from "mode size"


def check(task: Task, settings: Settings, on_event: OnEvent = ignore) -> DataSummary:
    """Count images by class and part, by size and by mode; name every one that cannot be read. Raises DataError for unusable data."""
    table = load_table(task, settings, locate(task, settings.data))
    found = list(each_image(table.rows, _look, "checking images", on_event))
    bad = [Unreadable(row.path, seen[1:]) for row, seen in zip(table.rows, found, strict=True) if seen.startswith(BAD)]
    good = [seen.split() for seen in found if not seen.startswith(BAD)]
    modes, sizes = Counter(mode for mode, _ in good), Counter(size for _, size in good)
    return replace(table.summary(), unreadable=bad, modes=dict(modes.most_common()), sizes=dict(sizes.most_common()))


def _look(path: str) -> str:
    """Return "mode widthxheight" of an image that opens, else the reason why not, marked."""
    try:
        data = images.read_bytes(path)
        images.decode(data)
        mode, (width, height) = images.describe(data)
    except ImageError as error:
        return BAD + error.message
    return f"{mode} {width}x{height}"
