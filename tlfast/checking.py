"""`tlfast data check`: what a task's images are, and what is wrong with them, before anything is trained on them."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import cache, copies, images, runs
from .copies import THUMBNAIL, finding
from .data.sources import locate
from .data.table import ImageTable, each_image, load_table, signature
from .errors import DataError, ImageError, UsageError
from .outcomes import DataReport
from .results import Finding, OnEvent, Row, Unreadable, ignore
from .settings import Settings, Task

KIND = "checks"
LAYOUT = 2  # to be raised when the same images would be looked at otherwise
LOOKS = "looks.npz"
FOLDER = "checks"
FAINT = 2.0  # grey levels of standard deviation, below which an image shows next to nothing
DROPPABLE = {"duplicates": ("duplicate",), "conflicts": ("conflict",), "unreadable": ("unreadable",), "leaks": ("leak", "near leak")}

Search = Callable[[Task, Settings, Sequence[Row], OnEvent], list[Finding]]


@dataclass(frozen=True)
class _Look:
    """What was seen of one image that can be read."""

    mode: str
    size: str
    digest: bytes
    spread: float  # largest standard deviation of a channel, in grey levels
    constant: bool
    thumbnail: np.ndarray


@dataclass(frozen=True)
class _Looks:
    """What was seen of all images: arrays over `paths`, which can be read; reasons of those that cannot."""

    paths: list[str]
    digests: list[str]
    spreads: np.ndarray
    constant: np.ndarray
    thumbnails: np.ndarray
    unreadable: dict[str, str]
    modes: dict[str, int]
    sizes: dict[str, int]


def check(task: Task, settings: Settings, drop: Sequence[str] = (), on_event: OnEvent = ignore, also: Search | None = None) -> DataReport:
    """Look at every image; name what is wrong, and keep the list; with `drop` also write a table without such images, to train on.

    `also` looks for more, in the images that can be read. Nothing of the data is changed. Raises UsageError, or DataError for unusable data.
    """
    for kind in drop:
        if kind not in DROPPABLE:
            raise UsageError(f"--drop '{kind}' is not one of: {', '.join(DROPPABLE)}")
    runs.check_writable(settings.out, settings.task, "")
    table = load_table(task, settings, locate(task, settings.data))
    looks = _looked([row.path for row in table.rows], on_event)
    findings = found(table.rows, looks)
    if also:
        findings += also(task, settings, [row for row in table.rows if row.path not in looks.unreadable], on_event)
    bad = [Unreadable(path, reason) for path, reason in looks.unreadable.items()]
    summary = replace(table.summary(), unreadable=bad, modes=looks.modes, sizes=looks.sizes)
    counts = dict(Counter(kind for kind, _ in dict.fromkeys((each.kind, each.path) for each in findings)))
    if not findings and not drop:
        return DataReport(summary, counts)
    return _written(DataReport(summary, counts, findings), table, drop, settings)


def found(rows: Sequence[Row], looks: _Looks) -> list[Finding]:
    """Return all that is wrong with images, kind by kind."""
    by_path = {row.path: row for row in rows}
    seen = [by_path[path] for path in looks.paths]
    return [
        *(finding("unreadable", by_path[path], reason=reason) for path, reason in looks.unreadable.items()),
        *(finding("constant", row) for row, constant in zip(seen, looks.constant, strict=True) if constant),
        *(
            finding("nearly constant", row, value=float(spread))
            for row, spread, constant in zip(seen, looks.spreads, looks.constant, strict=True)
            if spread < FAINT and not constant
        ),
        *copies.exact(seen, looks.digests),
        *copies.near(seen, looks.digests, looks.thumbnails),
        *_straddling(rows),
    ]


def _straddling(rows: Sequence[Row]) -> list[Finding]:
    """Name the images of valid and test whose group is in training too."""
    trained = {row.group: row for row in reversed(rows) if row.group and row.split == "train"}
    return [finding("straddling group", row, trained[row.group]) for row in rows if row.split in ("valid", "test") and row.group in trained]


# Looking


def _looked(paths: list[str], on_event: OnEvent) -> _Looks:
    """Return what was seen of images, from an earlier look if nothing has changed since."""
    name = cache.key(layout=LAYOUT, images=signature(paths))
    try:
        folder, about = cache.made(KIND, name, lambda folder: _looks(folder, paths, on_event))
        return _read(folder, about, paths)
    except DataError:  # nothing can be kept here
        with tempfile.TemporaryDirectory() as scratch:
            return _read(Path(scratch), _looks(Path(scratch), paths, on_event), paths)


def _read(folder: Path, about: dict[str, Any], paths: list[str]) -> _Looks:
    with np.load(folder / LOOKS) as kept:
        arrays = {name: kept[name] for name in kept.files}
    readable = [path for path in paths if path not in about["unreadable"]]
    digests = [digest.tobytes().hex() for digest in arrays["digests"]]
    rest = (about[name] for name in ("unreadable", "modes", "sizes"))
    return _Looks(readable, digests, arrays["spreads"], arrays["constant"], arrays["thumbnails"], *rest)


def _looks(folder: Path, paths: list[str], on_event: OnEvent) -> dict[str, Any]:
    """Look at every image; write arrays of what was seen, and return what is said in words: reasons, modes and sizes."""
    seen = list(each_image(paths, _look, "checking images", on_event))
    good = [each for each in seen if isinstance(each, _Look)]
    np.savez(
        folder / LOOKS,
        digests=np.frombuffer(b"".join(each.digest for each in good), np.uint8).reshape(len(good), -1) if good else np.zeros((0, 16), np.uint8),
        spreads=np.array([each.spread for each in good], np.float32),
        constant=np.array([each.constant for each in good], bool),
        thumbnails=np.stack([each.thumbnail for each in good]) if good else np.zeros((0, THUMBNAIL**2), np.uint8),
    )
    modes, sizes = (Counter(getattr(each, name) for each in good) for name in ("mode", "size"))
    unreadable = {path: each for path, each in zip(paths, seen, strict=True) if isinstance(each, str)}
    return {"unreadable": unreadable, "modes": dict(modes.most_common()), "sizes": dict(sizes.most_common())}


def _look(path: str) -> _Look | str:
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
    thumbnail = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)).reshape(-1)
    return _Look(mode, f"{width}x{height}", digest, spread, constant, thumbnail)


# Files


def _written(report: DataReport, table: ImageTable, drop: Sequence[str], settings: Settings) -> DataReport:
    """Write the findings, and the table that is left to train on where something is to be dropped."""
    with runs.writing(settings.out, f"{settings.task}/{FOLDER}", time.strftime("%Y%m%d-%H%M%S"), latest=False) as (folder, published):
        if report.findings:
            runs.write_csv(folder / "findings.csv", report.findings)
        if drop:
            kept, dropped = left(table.rows, report.findings, drop)
            if not kept:
                raise DataError("nothing would be left to train on", "Drop less")
            runs.write_csv(folder / "images.csv", [replace(row, path=os.path.abspath(row.path)) for row in kept])
            report = replace(report, dropped=dropped)
    return replace(report, findings_file=_placed(published[0] / "findings.csv"), table=_placed(published[0] / "images.csv"))


def _placed(path: Path) -> str:
    return str(path) if path.is_file() else ""


def left(rows: Sequence[Row], findings: Sequence[Finding], drop: Sequence[str]) -> tuple[list[Row], dict[str, int]]:
    """Return the rows without what is to be dropped, and how many images went for each kind.

    Of a leak the training image goes, wherever it was copied to, so that what judges stays as it was; of copies the first stays.
    """
    kinds = {kind: name for name in drop for kind in DROPPABLE[name]}
    gone: dict[str, str] = {}
    for each in findings:
        if each.kind in kinds:
            gone.setdefault(each.other if "leak" in each.kind else each.path, kinds[each.kind])
    if "leaks" in drop:
        _spread(gone, findings)
    dropped: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.path in gone:
            dropped[gone[row.path]] += 1
    return [row for row in rows if row.path not in gone], dict(dropped)


def _spread(gone: dict[str, str], findings: Sequence[Finding]) -> None:
    """Where a training image goes because it leaks, its copies within the training part go too."""
    for each in findings:
        if each.kind == "duplicate" and each.split == "train" and gone.get(each.other) == "leaks":
            gone[each.path] = "leaks"
