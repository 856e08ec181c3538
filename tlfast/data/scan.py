"""Checks of images without a network: unreadable, constant, dark, pale or blurry images, and duplicates. The measured values are cached."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core import DataError, ImageError, OnEvent, cache, ignore_event
from . import duplicates, images
from .capture_time import find_near_in_time
from .duplicates import THUMBNAIL, make_finding
from .file_hashes import hash_files
from .types import Finding, Row
from .unreadable import get_or_recompute

KIND = "checks"
LAYOUT = 4  # part of the cache key: increase it if the same images would give other values
STATS_FILE = "looks.npz"
FAINT = 2.0  # standard deviation in grey levels, below which an image is nearly constant
# In grey levels: the 99th percentile of a dark image is below DARK, the 5th of a pale image above PALE. Limits as in cleanvision.
DARK, PALE = 0.32 * 255, 0.95 * 255
EMPTY_KINDS = ("constant", "nearly constant", "dark", "pale", "blurry")
# A blurry image has a detail below both limits: in the square of grey levels, and as a share of the median of all images.
DETAIL_SIDE, MIN_DETAIL, MIN_SHARE = 256, 100.0, 0.02


@dataclass(frozen=True)
class _ImageStats:
    """Measured values of one readable image: mode and size of the file, a hash of its pixels, statistics in grey levels."""

    mode: str
    size: str
    digest: bytes
    spread: float  # largest standard deviation of a channel
    constant: bool  # all pixels are equal
    low: int  # 5th percentile
    high: int  # 99th percentile
    detail: float  # variance of the Laplacian at a size of at most DETAIL_SIDE
    thumbnail: np.ndarray  # uint8 [THUMBNAIL**2]


@dataclass(frozen=True)
class ScanResult:
    """Measured values of all images: arrays over the readable images `paths`, and the reasons of the unreadable ones by path.

    `modes` and `sizes` count the images by Pillow mode and by "width x height". The other fields are those of `_ImageStats`.
    """

    paths: list[str]
    digests: list[str]
    spread: np.ndarray
    constant: np.ndarray
    low: np.ndarray
    high: np.ndarray
    detail: np.ndarray
    thumbnail: np.ndarray
    unreadable: dict[str, str]
    modes: dict[str, int]
    sizes: dict[str, int]


def collect_findings(rows: Sequence[Row], scanned: ScanResult, on_event: OnEvent = ignore_event) -> list[Finding]:
    """Return the findings of all images, ordered by kind. Those of nearly equal images are cached."""
    by_path = {row.path: row for row in rows}
    readable = [by_path[path] for path in scanned.paths]
    return [
        *(make_finding("unreadable", by_path[path], reason=reason) for path, reason in scanned.unreadable.items()),
        *sorted(_find_empty(readable, scanned), key=lambda finding: EMPTY_KINDS.index(finding.kind)),
        *duplicates.find_exact(readable, scanned.digests),
        *_find_near(readable, scanned, on_event),
        *_find_straddling(rows),
        *find_near_in_time(rows),
    ]


def _find_near(rows: Sequence[Row], scanned: ScanResult, on_event: OnEvent) -> list[Finding]:
    """Return the findings of nearly equal images, from the cache if images, labels and splits are the same: the time is quadratic in their number."""
    thumbnails = hashlib.sha256(scanned.thumbnail.tobytes()).hexdigest()
    described = [(row.path, row.label, row.split) for row in rows]
    key = cache.make_key(layout=LAYOUT, alike=duplicates.ALIKE, thumbnails=thumbnails, digests=scanned.digests, rows=described)

    def compute() -> dict[str, Any]:
        return {"findings": [asdict(finding) for finding in duplicates.find_near(rows, scanned.digests, scanned.thumbnail, on_event)]}

    return [Finding(**values) for values in cache.get_or_compute(KIND, key, compute)["findings"]]


def _find_empty(rows: Sequence[Row], scanned: ScanResult) -> Iterator[Finding]:
    """Yield constant, nearly constant, dark, pale and blurry images. An image with several problems has the first kind of this list."""
    median = float(np.median(scanned.detail)) if len(rows) else 0.0
    values = zip(rows, scanned.spread, scanned.constant, scanned.low, scanned.high, scanned.detail, strict=True)
    for row, spread, constant, low, high, detail in values:
        if constant:
            yield make_finding("constant", row)
        elif spread < FAINT:
            yield make_finding("nearly constant", row, value=float(spread))
        elif high < DARK:
            yield make_finding("dark", row, value=float(high))
        elif low > PALE:
            yield make_finding("pale", row, value=float(low))
        elif detail < min(MIN_DETAIL, MIN_SHARE * median):
            yield make_finding("blurry", row, value=float(detail) / median)


def _find_straddling(rows: Sequence[Row]) -> list[Finding]:
    """Return the valid and test images with a group that also has training images."""
    train_rows = {row.group: row for row in reversed(rows) if row.group and row.split == "train"}
    return [make_finding("straddling group", row, train_rows[row.group]) for row in rows if row.split in ("valid", "test") and row.group in train_rows]


def is_scanned(paths: Sequence[str]) -> bool:
    """Return whether the values of these files are in the cache."""
    return cache.find(KIND, _cache_key(paths)) is not None


def scan_images(paths: list[str], on_event: OnEvent) -> ScanResult:
    """Return the measured values of images, from the cache if no file has changed."""
    try:
        _, folder, about = get_or_recompute(KIND, _cache_key(paths), lambda folder: _compute_stats(folder, paths, on_event))
        return _read(folder, about, paths)
    except DataError:  # the cache is not writable
        with tempfile.TemporaryDirectory() as scratch:
            return _read(Path(scratch), _compute_stats(Path(scratch), paths, on_event), paths)


def _cache_key(paths: Sequence[str]) -> str:
    return cache.make_key(layout=LAYOUT, images=hash_files(paths))


def _read(folder: Path, about: dict[str, Any], paths: list[str]) -> ScanResult:
    with np.load(folder / STATS_FILE) as file:
        arrays = {name: file[name] for name in file.files}
    readable = [path for path in paths if path not in about["unreadable"]]
    digests = [digest.tobytes().hex() for digest in arrays.pop("digests")]
    return ScanResult(readable, digests, **arrays, **{name: about[name] for name in ("unreadable", "modes", "sizes")})


def _compute_stats(folder: Path, paths: list[str], on_event: OnEvent) -> dict[str, Any]:
    """Measure every image. Writes the arrays to `folder` and returns the rest: reasons of unreadable images, modes and sizes."""
    results = list(images.map_images(paths, _measure_image, "checking images", on_event))
    stats = [result for result in results if isinstance(result, _ImageStats)]
    np.savez(
        folder / STATS_FILE,
        digests=np.frombuffer(b"".join(image.digest for image in stats), np.uint8).reshape(len(stats), -1) if stats else np.zeros((0, 16), np.uint8),
        spread=np.array([image.spread for image in stats], np.float32),
        constant=np.array([image.constant for image in stats], bool),
        low=np.array([image.low for image in stats], np.uint8),
        high=np.array([image.high for image in stats], np.uint8),
        detail=np.array([image.detail for image in stats], np.float32),
        thumbnail=np.stack([image.thumbnail for image in stats]) if stats else np.zeros((0, THUMBNAIL**2), np.uint8),
    )
    modes, sizes = (Counter(getattr(image, name) for image in stats) for name in ("mode", "size"))
    unreadable = {path: result for path, result in zip(paths, results, strict=True) if isinstance(result, str)}
    return {"unreadable": unreadable, "modes": dict(modes.most_common()), "sizes": dict(sizes.most_common())}


def _measure_image(path: str) -> _ImageStats | str:
    """Return the measured values of an image, or why it cannot be read."""
    try:
        data = images.read_bytes(path)
        image = images.decode(data)
        mode, (width, height) = images.describe(data)
    except ImageError as error:
        return error.message
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    counts, levels = np.reshape(image.histogram(), (3, 256)), np.arange(256)  # of each channel; arrays of all pixels would need much memory
    means = counts @ levels / counts.sum(axis=1)
    spread, constant = float(np.sqrt((counts * (levels - means[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1)).max()), bool((counts > 0).sum() == 3)
    grey = image.convert("L")
    low, high = np.searchsorted(np.cumsum(grey.histogram()), [0.05 * image.width * image.height, 0.99 * image.width * image.height])
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)).reshape(-1)
    return _ImageStats(mode, f"{width}x{height}", digest, spread, constant, int(low), int(high), measure_detail(grey), thumbnail)


def measure_detail(grey: Image.Image) -> float:
    """Return the variance of the Laplacian of a grey image, scaled to at most DETAIL_SIDE pixels a side; 0 for images of less than 3 pixels a side.

    It is low for blurry images (Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548).
    """
    small = grey.copy()
    small.thumbnail((DETAIL_SIDE, DETAIL_SIDE))
    values = np.asarray(small, np.float32)
    if min(values.shape) < 3:
        return 0.0
    centre, vertical, horizontal = values[1:-1, 1:-1], values[:-2, 1:-1] + values[2:, 1:-1], values[1:-1, :-2] + values[1:-1, 2:]
    return float((4 * centre - vertical - horizontal).var())
