"""The image store: all images of a table, decoded and resized once, as one uint8 array. Runs, folds and commands share it through the cache."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..core import ImageError, ModelSettings, OnEvent, Settings, UsageError, cache, ignore_event
from ..core.system import free_disk_gib, free_memory_gib, release_pages
from . import images
from .file_hashes import hash_files
from .table import ImageTable, check_readable, drop_unreadable
from .types import Unreadable
from .unreadable import get_or_recompute

KIND = "stores"
PIXELS = "pixels.u8"
LAYOUT = 2  # part of the cache key: increase it if the same images would give other pixels
DIGEST_BYTES = 16
SPARE_GIB = 1.0  # disk space or memory left free for other programs


@dataclass(frozen=True)
class Store:
    """Decoded images: `pixels` is uint8 `[n, k, f, f]`, with k = 1 if all images are grey, else 3, and f the side before the crop.

    `index` gives the row of `pixels` for each path, `size` the side of the network input. `key` is the cache key; `cached` is true if the
    store is on disk, for later runs too. `writable` is false if `--store auto` found it in a cache that cannot be written: features that the cache does not
    have stay in memory then. `digests` joins the hashes (hex) of all images; "" for a store that an earlier version has made.
    """

    pixels: np.ndarray
    index: dict[str, int]
    size: int
    key: str
    cached: bool
    writable: bool = True
    digests: str = ""

    @property
    def grey(self) -> bool:
        """Whether all images are grey."""
        return bool(self.pixels.shape[1] == 1)


def open_store(table: ImageTable, settings: Settings, on_event: OnEvent = ignore_event) -> tuple[ImageTable, Store | None]:
    """Return the table without unreadable images, and the store of the others (None with `--store off`).

    The cache key depends on the image size, the resize policy, and the paths, sizes and times of the files: see `hash_files`. Raises DataError as
    `drop_unreadable` does.
    """
    paths = sorted({row.path for row in table.rows})
    key = cache.make_key(layout=LAYOUT, size=settings.full_size, resize=settings.resize, images=hash_files(paths))
    is_there = settings.store == "auto" and cache.find(KIND, key) is not None  # then it needs no more room
    kind = "disk" if is_there else choose_location(settings.store, len(paths) * 3 * settings.full_size**2)
    if kind == "off":
        return check_readable(table, on_event), None
    if kind == "ram":
        memory = mmap.mmap(-1, max(1, len(paths) * 3 * settings.full_size**2))
        about = fill_store(memory, paths, settings, on_event)
    else:
        key, folder, about = get_or_recompute(KIND, key, lambda folder: _make_file(folder, paths, settings, on_event))
    table = drop_unreadable(table, tuple(Unreadable(path, reason) for path, reason in about["unreadable"].items()))
    # Copy-on-write mode, because torch warns about read-only memory.
    pixels = np.frombuffer(memory, np.uint8) if kind == "ram" else np.memmap(folder / PIXELS, np.uint8, "c")
    readable = [path for path in paths if path not in about["unreadable"]]
    shape = (len(readable), about["channels"], settings.full_size, settings.full_size)
    index = {path: i for i, path in enumerate(readable)}
    writable, pixels = not is_there or _is_cache_writable(), pixels[: math.prod(shape)].reshape(shape)
    return table, Store(pixels, index, settings.size, key, kind == "disk", writable, about.get("digests", ""))


def _make_file(folder: Path, paths: list[str], settings: ModelSettings, on_event: OnEvent) -> dict[str, Any]:
    with open(folder / PIXELS, "w+b") as file:
        return fill_store(file, paths, settings, on_event)


def choose_location(requested: str, size: int) -> str:
    """Return the location for a store of at most `size` bytes: disk, ram or off. "auto" is the first of them with enough free space."""
    if requested != "auto":
        return requested
    gib = size / 2**30
    if free_disk_gib(str(cache.find_root())) > gib + SPARE_GIB and _is_cache_writable():
        return "disk"
    return "ram" if (free_memory_gib() or 0) > 2 * gib + SPARE_GIB else "off"


def _is_cache_writable() -> bool:
    """Return whether this user can write to the cache, and to the folders in it that another user may have made."""
    try:
        cache.check_writable()
    except UsageError:
        return False
    folders = [cache.find_root() / kind for kind in cache.AVOIDABLE]
    return all(os.access(folder, os.W_OK | os.X_OK) for folder in folders if folder.exists())


def fill_store(sink: BinaryIO | mmap.mmap, paths: Sequence[str], settings: ModelSettings, on_event: OnEvent) -> dict[str, Any]:
    """Write the pixels of all images to `sink`. Returns the number of channels, the reasons for unreadable images by path, and the joined hashes.

    Images are written with one channel until the first colour image; then the images in `sink` are widened to three. Memory use is constant.
    """
    plane, channels = settings.full_size**2, 1
    unreadable: dict[str, str] = {}
    digests: list[str] = []

    def decode(path: str) -> tuple[np.ndarray, str] | str:
        try:
            pixels = to_planes(images.resize(images.open_image(path), settings.full_size, settings.resize))
            return pixels, _hash_pixels(pixels)
        except ImageError as error:
            return error.message

    for path, result in zip(paths, images.map_images(paths, decode, "storing images", on_event), strict=True):
        if isinstance(result, str):
            unreadable[path] = result
            continue
        pixels, digest = result
        if len(pixels) > channels:
            _widen_channels(sink, len(digests), plane)
            channels = 3
        sink.write(np.broadcast_to(pixels, (channels, *pixels.shape[1:])).tobytes())
        digests.append(digest)
    return {"channels": channels, "unreadable": unreadable, "digests": "".join(digests)}


def to_planes(image: Image.Image) -> np.ndarray:
    """Return the pixels of an RGB image: `[1, h, w]` if its channels are equal, else `[3, h, w]`."""
    pixels = np.asarray(image)
    red, green, blue = np.moveaxis(pixels, 2, 0)
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    return red[None] if grey else np.moveaxis(pixels, 2, 0)


def image_digests(store: Store) -> dict[str, str]:
    """Return a hash of the stored pixels of each image by path. Images that are equal after resizing have equal hashes."""
    if store.digests:
        length = 2 * DIGEST_BYTES
        return {path: store.digests[i * length : (i + 1) * length] for path, i in store.index.items()}

    def compute() -> dict[str, Any]:
        return {"digests": list(map(_hash_pixels, store.pixels))}

    digests = (cache.get_or_compute("digests", store.key, compute) if store.cached else compute())["digests"]
    release_pages(store.pixels)
    return dict(zip(store.index, digests, strict=True))


def _hash_pixels(pixels: np.ndarray) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=DIGEST_BYTES).hexdigest()


def _widen_channels(sink: BinaryIO | mmap.mmap, stored: int, plane: int) -> None:
    """Repeat the channel of each stored image three times, in place: from the last image to the first, so that none is overwritten unread."""
    for i in reversed(range(stored)):
        sink.seek(i * plane)
        grey = sink.read(plane)
        sink.seek(3 * i * plane)
        sink.write(3 * grey)
    sink.seek(3 * stored * plane)
