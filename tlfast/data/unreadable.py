"""Cache entries that list unreadable images, made again when one of these can be read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from ..core import ImageError, cache
from .images import open_image

RETRIED = 100  # unreadable images that are tried again
ATTEMPTS = 5  # entries that are made for the same files


def get_or_recompute(kind: str, key: str, fill: Callable[[Path], dict[str, Any]]) -> tuple[str, Path, dict[str, Any]]:
    """Return name, folder and description of a cache entry, whose description lists the reasons for unreadable images by path under "unreadable".

    Another entry is made if one of these images can be read now: a decoder was installed, or a disk had failed. Raises DataError as
    `cache.get_or_create` does.
    """
    for attempt in range(ATTEMPTS):
        name = cache.make_key(entry=key, attempt=attempt) if attempt else key
        folder, about = cache.get_or_create(kind, name, fill)
        if not any(map(_can_be_read, islice(about["unreadable"], RETRIED))):
            break
    return name, folder, about


def _can_be_read(path: str) -> bool:
    try:
        open_image(path)
    except ImageError:
        return False
    return True
