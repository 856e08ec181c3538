"""Exact and near duplicates: within a split, across splits (leaks) and with different labels (conflicts)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..core import OnEvent, Progress, ignore_event
from .types import FINDING_KINDS, Finding, Row

# Least correlation of the thumbnails of near duplicates: the same picture, compressed, resized or brightened again.
ALIKE = 0.99
# Limits of near duplicates with features, such as shifted or cropped copies: least correlation of the thumbnails, and largest distance of the features
# as a share of the median distance to the nearest neighbour; see docs/benchmarks.md, "Near duplicates".
PLAUSIBLE, CLOSE = 0.87, 0.35
CONFIRMED = "confirmed by features"  # reason of a finding
PAIRS_AT_ONCE = 10_000  # whose features are compared
THUMBNAIL = 16  # side in pixels
AT_ONCE = 8_000_000  # approximate number of pairs per matrix product: 32 MB


def find_exact(rows: Sequence[Row], digests: Sequence[str]) -> list[Finding]:
    """Return the findings of images with equal `digests`: duplicates within a split, leaks across splits, conflicts of labels.

    A duplicate refers to the first image of its split, a leak (an image of the valid or test split) to the image of the train split, else of
    the valid split. A conflict has one finding per image.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, digest in zip(rows, digests, strict=True):
        groups[digest].append(row)
    findings: list[Finding] = []
    for group in groups.values():
        if len(group) > 1:
            findings += [*_find_copies(group), *_find_leaks(group), *_find_conflicts(group)]
    return findings


def describe_duplicates(rows: Sequence[Row], digests: Mapping[str, str]) -> str:
    """Return a note on the number of exact duplicates, leaks and conflicts, or "" if there are none. `digests` has the hash of each path."""
    counts = Counter(finding.kind for finding in find_exact(rows, [digests[row.path] for row in rows]))
    phrases = {
        "duplicate": ("is a copy", "are copies", "of another image of the same split"),
        "leak": ("of the valid or test split is a copy", "of the valid or test split are copies", "of an image of an earlier split"),
        "conflict": ("has a copy", "have a copy", "with another label"),
    }
    parts = [f"{counts[kind]:,} {one if counts[kind] == 1 else many} {rest}" for kind, (one, many, rest) in phrases.items() if counts[kind]]
    return f"among {len(rows):,} images {'; '.join(parts)}" if parts else ""


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
        other = next((other for other in group if other.label != row.label), None)
        if other:
            yield make_finding("conflict", row, other)


def find_near(rows: Sequence[Row], digests: Sequence[str], thumbnails: np.ndarray, on_event: OnEvent = ignore_event) -> list[Finding]:
    """Return the findings of nearly equal images: near conflicts, near leaks and near duplicates.

    A near conflict has one finding per image, and a near duplicate refers to the most similar image of its split. For near leaks, each image is paired
    with the most similar image of another split. `thumbnails` are grey, uint8 `[n, THUMBNAIL**2]`; those without contrast are ignored.
    """
    return _describe_pairs(rows, digests, _find_similar(thumbnails, on_event))


def find_near_by_features(
    rows: Sequence[Row], digests: Sequence[str], thumbnails: np.ndarray, vectors: np.ndarray, limit: float, on_event: OnEvent = ignore_event
) -> list[Finding]:
    """Return the findings of nearly equal images that `find_near` does not find, such as shifted or cropped copies.

    `vectors` are features `[n, d]` of unit length, or zero for images without any; `limit` is the largest cosine distance.
    """
    return _describe_pairs(rows, digests, _find_close(thumbnails, vectors, limit, on_event), CONFIRMED)


def _describe_pairs(rows: Sequence[Row], digests: Sequence[str], pairs: Iterator[tuple[int, int, float]], reason: str = "") -> list[Finding]:
    """Return the findings of pairs of nearly equal images (i, j, correlation). There are at most four for each image, of any number of pairs."""
    leaks: dict[tuple[str, int], tuple[float, int]] = {}  # side and image -> the most similar image of the other side
    most_similar: dict[int, tuple[float, int]] = {}
    conflicts: dict[int, tuple[float, int]] = {}
    for i, j, similarity in pairs:
        if digests[i] == digests[j]:
            continue
        if rows[i].label != rows[j].label:
            for one, other in ((i, j), (j, i)):
                conflicts[one] = max(conflicts.get(one, (0.0, 0)), (similarity, other))
        later, earlier = (i, j) if _sort_key(rows[i], i) > _sort_key(rows[j], j) else (j, i)
        if rows[i].split != rows[j].split:
            for side, one, other in (("later", later, earlier), ("earlier", earlier, later)):
                leaks[side, one] = max(leaks.get((side, one), (0.0, 0)), (similarity, other))
        else:
            most_similar[later] = max(most_similar.get(later, (0.0, 0)), (similarity, earlier))
    leaking = {(one, other, value) if side == "later" else (other, one, value) for (side, one), (value, other) in leaks.items()}
    return [
        *(make_finding("near conflict", rows[i], rows[j], similarity, reason) for i, (similarity, j) in sorted(conflicts.items())),
        *(make_finding("near leak", rows[i], rows[j], similarity, reason) for i, j, similarity in sorted(leaking)),
        *(make_finding("near duplicate", rows[i], rows[j], similarity, reason) for i, (similarity, j) in sorted(most_similar.items())),
    ]


def _sort_key(row: Row, index: int) -> tuple[int, int]:
    """Order train, valid, test: the later image of a pair is reported as the leak."""
    return ("train", "valid", "test").index(row.split) if row.split in ("train", "valid", "test") else 3, index


def _find_similar(thumbnails: np.ndarray, on_event: OnEvent = ignore_event) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, correlation) for all pairs of thumbnails with a correlation of at least ALIKE."""
    for first, second, similarity in _find_correlated(thumbnails, ALIKE, on_event):
        yield from zip(first.tolist(), second.tolist(), similarity.tolist(), strict=True)


def _find_close(thumbnails: np.ndarray, vectors: np.ndarray, limit: float, on_event: OnEvent) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, correlation) for all pairs with plausible thumbnails, correlated less than ALIKE, whose features have a distance of at most `limit`."""
    for first, second, similarity in _find_correlated(thumbnails, PLAUSIBLE, on_event):
        for start in range(0, len(first), PAIRS_AT_ONCE):
            i, j, values = (array[start : start + PAIRS_AT_ONCE] for array in (first, second, similarity))
            close = (values < ALIKE) & (np.einsum("nd,nd->n", vectors[i], vectors[j]) >= 1 - limit)
            yield from zip(i[close].tolist(), j[close].tolist(), values[close].tolist(), strict=True)


def _find_correlated(thumbnails: np.ndarray, least: float, on_event: OnEvent) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield arrays of i, j and correlation that together have all pairs of thumbnails with a correlation of at least `least`.

    Images are sorted by their projection on the first principal component. Similar images have similar projections, so each is compared
    with its neighbours only.
    """
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1)
    kept = np.flatnonzero(lengths > THUMBNAIL)  # a standard deviation of one grey level
    values = values[kept] / lengths[kept, None]  # unit length: the dot product is the correlation
    if len(kept) < 2:
        return
    axis = np.linalg.eigh(np.cov(values[:: max(1, len(values) // 10_000)].T.astype(np.float64)))[1][:, -1].astype(np.float32)
    projections = values @ axis
    order = np.argsort(projections, kind="stable")
    kept, values, projections = kept[order], values[order], projections[order]
    radius = float(np.sqrt(2 - 2 * least)) + 1e-5  # the distance of two unit vectors with this correlation
    ends = np.searchsorted(projections, projections + radius, side="right")
    start = 0
    while start < len(kept):
        stop = min(start + max(1, AT_ONCE // int(ends[start] - start)), len(kept))
        while stop > start + 1 and (stop - start) * int(ends[stop - 1] - start) > 2 * AT_ONCE:  # the first of them has fewer neighbours than others
            stop = start + (stop - start) // 2
        similarity = values[start:stop] @ values[start : ends[stop - 1]].T
        i, j = np.nonzero(np.triu(similarity >= least, k=1))
        yield kept[start + i], kept[start + j], np.minimum(similarity[i, j], 1.0)
        on_event(Progress("comparing images", stop, len(kept)))
        start = stop


def make_finding(kind: str, row: Row, other: Row | None = None, value: float | None = None, reason: str = "") -> Finding:
    """Return a finding on an image and the related image `other`. Raises ValueError if `kind` is not in FINDING_KINDS."""
    if kind not in FINDING_KINDS:
        raise ValueError(kind)
    related = (other.path, other.label, other.split) if other else ("", "", "")
    return Finding(kind, row.path, row.label, row.split, *related, value, reason)
