"""Images that are there twice: to the pixel, or nearly; within a part, across parts, under different labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .types import FINDING_KINDS, Finding, Row

# Correlation of two images' thumbnails from which on they are the same picture, compressed, resized or brightened anew.
ALIKE = 0.99
THUMBNAIL = 16  # pixels a side
AT_ONCE = 8_000_000  # pairs, roughly, that are compared together: 32 MB


def find_exact(rows: Sequence[Row], digests: Sequence[str]) -> list[Finding]:
    """Return what is wrong with images of equal pixels: copies within a part, leaks across parts, conflicting labels.

    A copy is named beside the first of its part; a leak is an image of valid or test that training (or valid) has too; in a conflict every
    image of the group is named.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, digest in zip(rows, digests, strict=True):
        groups[digest].append(row)
    found = []
    for group in groups.values():
        if len(group) > 1:
            found += [*_find_copies(group), *_find_leaks(group), *_find_conflicts(group)]
    return found


def describe_duplicates(rows: Sequence[Row], digests: Mapping[str, str]) -> str:
    """Say in a sentence how many images of the table are there twice, by digests of their pixels; "" where none is."""
    counts = Counter(each.kind for each in find_exact(rows, [digests[row.path] for row in rows]))
    words = {
        "duplicate": ("is a copy", "are copies", "of another in the same part"),
        "leak": ("of the valid or test part is", "of the valid or test part are", "in training too"),
        "conflict": ("has a copy", "have a copy", "with another label"),
    }
    said = [f"{counts[kind]:,} {one if counts[kind] == 1 else many} {rest}" for kind, (one, many, rest) in words.items() if counts[kind]]
    return f"among {len(rows):,} images {'; '.join(said)}" if said else ""


def _find_copies(group: Sequence[Row]) -> Iterator[Finding]:
    first: dict[str, Row] = {}
    for row in group:
        if row.split in first:
            yield make_finding("duplicate", row, first[row.split])
        first.setdefault(row.split, row)


def _find_leaks(group: Sequence[Row]) -> Iterator[Finding]:
    first = {split: next((row for row in group if row.split == split), None) for split in ("train", "valid")}
    for row in group:
        earlier = first["train"] or (first["valid"] if row.split == "test" else None)
        if row.split in ("valid", "test") and earlier:
            yield make_finding("leak", row, earlier)


def _find_conflicts(group: Sequence[Row]) -> Iterator[Finding]:
    for row in group:
        other = next((each for each in group if each.label != row.label), None)
        if other:
            yield make_finding("conflict", row, other)


def find_near(rows: Sequence[Row], digests: Sequence[str], thumbnails: np.ndarray) -> list[Finding]:
    """Return images that are nearly another one: near leaks, each pair across parts, near duplicates, each beside the likest of its part, and near
    conflicts, both of a pair with two labels.

    `thumbnails` are grey, uint8 `[n, THUMBNAIL**2]`; those without contrast look like no other.
    """
    leaks: list[tuple[int, int, float]] = []
    likest: dict[int, tuple[float, int]] = {}
    conflicts: dict[int, tuple[float, int]] = {}
    for i, j, likeness in _find_similar(thumbnails):
        if digests[i] == digests[j]:
            continue
        if rows[i].label != rows[j].label:
            for one, other in ((i, j), (j, i)):
                conflicts[one] = max(conflicts.get(one, (0.0, 0)), (likeness, other))
        later, earlier = (i, j) if _sort_key(rows[i], i) > _sort_key(rows[j], j) else (j, i)
        if rows[i].split != rows[j].split:
            leaks.append((later, earlier, likeness))
        else:
            likest[later] = max(likest.get(later, (0.0, 0)), (likeness, earlier))
    return [
        *(make_finding("near conflict", rows[i], rows[j], likeness) for i, (likeness, j) in sorted(conflicts.items())),
        *(make_finding("near leak", rows[i], rows[j], likeness) for i, j, likeness in sorted(leaks)),
        *(make_finding("near duplicate", rows[i], rows[j], likeness) for i, (likeness, j) in sorted(likest.items())),
    ]


def _sort_key(row: Row, place: int) -> tuple[int, int]:
    """Sort training images before those that judge: it is the latter that a leak spoils."""
    return ("train", "valid", "test").index(row.split) if row.split in ("train", "valid", "test") else 3, place


def _find_similar(thumbnails: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, correlation) of all pairs that are alike.

    Images are sorted along the line on which they differ most; two that are alike lie near one another on any line, so that each need be
    compared with a stretch of the others only.
    """
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1)
    kept = np.flatnonzero(lengths > THUMBNAIL)  # a contrast of one grey level
    values = values[kept] / lengths[kept, None]  # of length 1: a product is a correlation
    if len(kept) < 2:
        return
    axis = np.linalg.eigh(np.cov(values[:: max(1, len(values) // 10_000)].T.astype(np.float64)))[1][:, -1].astype(np.float32)
    places = values @ axis
    order = np.argsort(places, kind="stable")
    kept, values, places = kept[order], values[order], places[order]
    reach = float(np.sqrt(2 - 2 * ALIKE)) + 1e-5  # the distance of two vectors of that correlation
    ends = np.searchsorted(places, places + reach, side="right")
    start = 0
    while start < len(kept):
        stop = min(start + max(1, AT_ONCE // int(ends[start] - start)), len(kept))
        likeness = values[start:stop] @ values[start : ends[stop - 1]].T
        for i, j in zip(*np.nonzero(np.triu(likeness >= ALIKE, k=1)), strict=True):
            yield int(kept[start + i]), int(kept[start + j]), float(min(likeness[i, j], 1.0))
        start = stop


def make_finding(kind: str, row: Row, other: Row | None = None, value: float | None = None, reason: str = "") -> Finding:
    """Return a finding about an image, beside the other that it concerns; `kind` is one of `results.KINDS`."""
    if kind not in FINDING_KINDS:
        raise ValueError(kind)
    beside = (other.path, other.label, other.split) if other else ("", "", "")
    return Finding(kind, row.path, row.label, row.split, *beside, value, reason)
