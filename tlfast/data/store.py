"""The store: every image of a table decoded and resized once, kept as uint8, shared by runs, folds and commands."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core import cache
from ..core.errors import ImageError
from ..core.events import OnEvent, ignore_event
from ..core.settings import Settings
from ..core.system import free_disk_gib, free_memory_gib, release_pages
from . import images
from .table import ImageTable, check_readable, drop_unreadable, hash_files, map_images
from .types import Unreadable

KIND = "stores"
PIXELS = "pixels.u8"
LAYOUT = 2  # to be raised when the pixels of the same images would come out otherwise
SPARE_GIB = 1.0  # of disk or memory, that are left to others


@dataclass(frozen=True)
class Store:
    """Decoded images: `pixels` uint8 `[n, k, f, f]`, where k is 1 if all are grey and else 3, and f is the size before the crop."""

    pixels: np.ndarray
    index: dict[str, int]  # path -> place in pixels
    size: int  # side of the crop that the network sees
    key: str
    kept: bool  # on disk, for later runs too

    @property
    def grey(self) -> bool:
        return self.pixels.shape[1] == 1


def open_store(table: ImageTable, settings: Settings, on_event: OnEvent = ignore_event) -> tuple[ImageTable, Store | None]:
    """Return the table without the images that cannot be read, and the store of the others (None where `--store off`).

    A store is made anew when a file's path, size or time of change differs, and found again otherwise. Raises DataError, as `readable` does.
    """
    paths = sorted({row.path for row in table.rows})
    kind = choose_location(settings.store, len(paths) * 3 * settings.full_size**2)
    if kind == "off":
        return check_readable(table, on_event), None
    name = cache.make_key(layout=LAYOUT, size=settings.full_size, resize=settings.resize, images=hash_files(paths))
    if kind == "ram":
        memory = mmap.mmap(-1, max(1, len(paths) * 3 * settings.full_size**2))
        about = fill_store(memory, paths, settings, on_event)
    else:
        folder, about = cache.get_or_create(KIND, name, lambda folder: _make_file(folder, paths, settings, on_event))
    table = drop_unreadable(table, tuple(Unreadable(path, reason) for path, reason in about["unreadable"].items()))
    # Copy on write: torch wants writable memory, though nothing ever writes.
    pixels = np.frombuffer(memory, np.uint8) if kind == "ram" else np.memmap(folder / PIXELS, np.uint8, "c")
    good = [path for path in paths if path not in about["unreadable"]]
    shape = (len(good), about["channels"], settings.full_size, settings.full_size)
    return table, Store(pixels[: math.prod(shape)].reshape(shape), {path: i for i, path in enumerate(good)}, settings.size, name, kind == "disk")


def _make_file(folder: Path, paths: list[str], settings: Settings, on_event: OnEvent) -> dict[str, Any]:
    with open(folder / PIXELS, "w+b") as file:
        return fill_store(file, paths, settings, on_event)


def choose_location(wanted: str, need: int) -> str:
    """Return where a store of at most `need` bytes goes: disk, ram or off. `auto` takes the first with room to spare."""
    if wanted != "auto":
        return wanted
    gib = need / 2**30
    if free_disk_gib(str(cache.find_root())) > gib + SPARE_GIB and _writable(cache.find_root()):
        return "disk"
    return "ram" if (free_memory_gib() or 0) > 2 * gib + SPARE_GIB else "off"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def fill_store(sink: BinaryIO | mmap.mmap, paths: Sequence[str], settings: Settings, on_event: OnEvent) -> dict[str, Any]:
    """Write each image's pixels to `sink`, one after another; return their number of channels and why some could not be read.

    One channel is written until the first image with colour, which makes what is there already wider; memory stays flat.
    """
    plane, stored, channels = settings.full_size**2, 0, 1
    unreadable: dict[str, str] = {}

    def decoded(path: str) -> np.ndarray | str:
        try:
            return count_planes(images.resize(images.open_image(path), settings.full_size, settings.resize))
        except ImageError as error:
            return error.message

    for path, found in zip(paths, map_images(paths, decoded, "storing images", on_event), strict=True):
        if isinstance(found, str):
            unreadable[path] = found
            continue
        if len(found) > channels:
            _widen_channels(sink, stored, plane)
            channels = 3
        sink.write(np.broadcast_to(found, (channels, *found.shape[1:])).tobytes())
        stored += 1
    return {"channels": channels, "unreadable": unreadable}


def count_planes(image: Any) -> np.ndarray:
    """Return an RGB image as `[1, h, w]` where its channels are equal, else as `[3, h, w]`."""
    pixels = np.asarray(image)
    red, green, blue = np.moveaxis(pixels, 2, 0)
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    return red[None] if grey else np.moveaxis(pixels, 2, 0)


def image_digests(store: Store) -> dict[str, str]:
    """Return a digest of each image's stored pixels, by path: equal for images that are equal once they are resized."""

    def read() -> dict[str, Any]:
        return {"digests": [hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest() for pixels in store.pixels]}

    found = (cache.get_or_compute("digests", store.key, read) if store.kept else read())["digests"]
    release_pages(store.pixels)
    return dict(zip(store.index, found, strict=True))


def _widen_channels(sink: BinaryIO | mmap.mmap, stored: int, plane: int) -> None:
    """Repeat the single plane of each stored image three times, the last image first, so that none is overwritten before it is read."""
    for i in reversed(range(stored)):
        sink.seek(i * plane)
        grey = sink.read(plane)
        sink.seek(3 * i * plane)
        sink.write(3 * grey)
    sink.seek(3 * stored * plane)
