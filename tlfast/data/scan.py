"""What can be seen of images without a network: unreadable, empty, dark, pale, there twice. Kept, so that nobody looks twice."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core import cache
from ..core.errors import DataError, ImageError
from ..core.events import OnEvent
from . import duplicates, images
from .duplicates import THUMBNAIL, make_finding
from .table import hash_files, map_images
from .types import Finding, Row

KIND = "checks"
LAYOUT = 3  # to be raised when the same images would be looked at otherwise
STATS_FILE = "looks.npz"
FAINT = 2.0  # grey levels of standard deviation, below which an image shows next to nothing
# Grey levels: an image is dark whose 99th percentile is below, pale whose 5th is above; cleanvision's rules and limits.
DARK, PALE = 0.32 * 255, 0.95 * 255


@dataclass(frozen=True)
class _ImageStats:
    """What was seen of one image that can be read."""

    mode: str
    size: str
    digest: bytes
    spread: float  # largest standard deviation of a channel, in grey levels
    constant: bool
    low: int  # grey level that a twentieth of the pixels do not pass
    high: int  # grey level that a hundredth of the pixels pass
    thumbnail: np.ndarray


@dataclass(frozen=True)
class ScanResult:
    """What was seen of all images: arrays over `paths`, which can be read; reasons of those that cannot."""

    paths: list[str]
    digests: list[str]
    spread: np.ndarray
    constant: np.ndarray
    low: np.ndarray
    high: np.ndarray
    thumbnail: np.ndarray
    unreadable: dict[str, str]
    modes: dict[str, int]
    sizes: dict[str, int]


def collect_findings(rows: Sequence[Row], looks: ScanResult) -> list[Finding]:
    """Return all that is wrong with images, kind by kind."""
    by_path = {row.path: row for row in rows}
    seen = [by_path[path] for path in looks.paths]
    return [
        *(make_finding("unreadable", by_path[path], reason=reason) for path, reason in looks.unreadable.items()),
        *sorted(_find_empty(seen, looks), key=lambda each: ("constant", "nearly constant", "dark", "pale").index(each.kind)),
        *duplicates.find_exact(seen, looks.digests),
        *duplicates.find_near(seen, looks.digests, looks.thumbnail),
        *_find_straddling(rows),
    ]


def _find_empty(seen: Sequence[Row], looks: ScanResult) -> Iterator[Finding]:
    """Name images that show little or nothing, each by the worst that is true of it."""
    for row, spread, constant, low, high in zip(seen, looks.spread, looks.constant, looks.low, looks.high, strict=True):
        if constant:
            yield make_finding("constant", row)
        elif spread < FAINT:
            yield make_finding("nearly constant", row, value=float(spread))
        elif high < DARK:
            yield make_finding("dark", row, value=float(high))
        elif low > PALE:
            yield make_finding("pale", row, value=float(low))


def _find_straddling(rows: Sequence[Row]) -> list[Finding]:
    """Name the images of valid and test whose group is in training too."""
    trained = {row.group: row for row in reversed(rows) if row.group and row.split == "train"}
    return [make_finding("straddling group", row, trained[row.group]) for row in rows if row.split in ("valid", "test") and row.group in trained]


def is_scanned(paths: Sequence[str]) -> bool:
    """Return whether these images, as they are, were looked at before."""
    return cache.find(KIND, _cache_name(paths)) is not None


def scan_images(paths: list[str], on_event: OnEvent) -> ScanResult:
    """Return what was seen of images, from an earlier look if nothing has changed since."""
    try:
        folder, about = cache.get_or_create(KIND, _cache_name(paths), lambda folder: _compute_stats(folder, paths, on_event))
        return _read(folder, about, paths)
    except DataError:  # nothing can be kept here
        with tempfile.TemporaryDirectory() as scratch:
            return _read(Path(scratch), _compute_stats(Path(scratch), paths, on_event), paths)


def _cache_name(paths: Sequence[str]) -> str:
    return cache.make_key(layout=LAYOUT, images=hash_files(paths))


def _read(folder: Path, about: dict[str, Any], paths: list[str]) -> ScanResult:
    with np.load(folder / STATS_FILE) as kept:
        arrays = {name: kept[name] for name in kept.files}
    readable = [path for path in paths if path not in about["unreadable"]]
    digests = [digest.tobytes().hex() for digest in arrays.pop("digests")]
    return ScanResult(readable, digests, **arrays, **{name: about[name] for name in ("unreadable", "modes", "sizes")})


def _compute_stats(folder: Path, paths: list[str], on_event: OnEvent) -> dict[str, Any]:
    """Look at every image; write arrays of what was seen, and return what is said in words: reasons, modes and sizes."""
    seen = list(map_images(paths, _measure_image, "checking images", on_event))
    good = [each for each in seen if isinstance(each, _ImageStats)]
    np.savez(
        folder / STATS_FILE,
        digests=np.frombuffer(b"".join(each.digest for each in good), np.uint8).reshape(len(good), -1) if good else np.zeros((0, 16), np.uint8),
        spread=np.array([each.spread for each in good], np.float32),
        constant=np.array([each.constant for each in good], bool),
        low=np.array([each.low for each in good], np.uint8),
        high=np.array([each.high for each in good], np.uint8),
        thumbnail=np.stack([each.thumbnail for each in good]) if good else np.zeros((0, THUMBNAIL**2), np.uint8),
    )
    modes, sizes = (Counter(getattr(each, name) for each in good) for name in ("mode", "size"))
    unreadable = {path: each for path, each in zip(paths, seen, strict=True) if isinstance(each, str)}
    return {"unreadable": unreadable, "modes": dict(modes.most_common()), "sizes": dict(sizes.most_common())}


def _measure_image(path: str) -> _ImageStats | str:
    """Return what is seen of an image, or why it cannot be read."""
    try:
        data = images.read_bytes(path)
        image = images.decode(data)
        mode, (width, height) = images.describe(data)
    except ImageError as error:
        return error.message
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    pixels = np.asarray(image)
    spread, constant = float(pixels.std(axis=(0, 1)).max()), bool((pixels == pixels[0, 0]).all())
    grey = image.convert("L")
    low, high = np.searchsorted(np.cumsum(grey.histogram()), [0.05 * pixels[..., 0].size, 0.99 * pixels[..., 0].size])
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)).reshape(-1)
    return _ImageStats(mode, f"{width}x{height}", digest, spread, constant, int(low), int(high), thumbnail)
