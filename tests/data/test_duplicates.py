"""Copies and near copies among images."""

from __future__ import annotations

import numpy as np
import pytest

from tlfast.data import duplicates
from tlfast.data.types import Row


def test_every_kind_that_can_be_found_has_a_meaning():
    with pytest.raises(ValueError, match="ugly"):
        duplicates.make_finding("ugly", Row("a.png", "a", "train"))


def test_near_pairs_are_those_of_comparing_all_with_all():
    rng = np.random.default_rng(1)
    thumbnails = rng.integers(0, 256, (300, 256), np.uint8)
    for i in range(0, 300, 7):
        thumbnails[(i + 50) % 300] = np.clip(thumbnails[i].astype(int) + rng.integers(-6, 7, 256), 0, 255)
    thumbnails[3] = 77
    wanted = {
        (i, j) for i, row in enumerate(np.corrcoef(thumbnails[[n for n in range(300) if n != 3]])) for j in np.flatnonzero(row >= duplicates.ALIKE) if i < j
    }
    place = [n for n in range(300) if n != 3]
    found = {tuple(sorted(pair[:2])) for pair in duplicates._find_similar(thumbnails)}
    assert found == {(place[i], place[j]) for i, j in wanted} and len(found) > 30


def test_pairs_by_features_are_those_of_comparing_all_with_all(monkeypatch):
    rng = np.random.default_rng(3)
    base = rng.normal(0, 40, (40, 256))
    thumbnails = np.clip(128 + np.repeat(base, 4, axis=0) + rng.normal(0, 16, (160, 256)) * np.tile([0, 0.5, 1, 2], 40)[:, None], 0, 255).astype(np.uint8)
    vectors = np.repeat(rng.normal(0, 1, (40, 8)), 4, axis=0) + rng.normal(0, 0.15, (160, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[::8] = 0  # without features
    similarity, distance = np.corrcoef(thumbnails), 1 - vectors @ vectors.T
    wanted = {(i, j) for i in range(160) for j in range(i + 1, 160) if duplicates.PLAUSIBLE <= similarity[i, j] < duplicates.ALIKE and distance[i, j] <= 0.05}
    rows = [Row(str(i), "x", "train" if i % 2 else "valid") for i in range(160)]
    digests = [row.path for row in rows]
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", 7)
    found = duplicates.find_near_by_features(rows, digests, thumbnails, vectors.astype(np.float32), 0.05)
    leaks = {tuple(sorted((int(f.path), int(f.other)))) for f in found if f.kind == "near leak"}
    assert leaks == {(i, j) for i, j in wanted if (i + j) % 2} and len(leaks) > 10
    assert {f.path for f in found if f.kind == "near duplicate"} == {str(j) for i, j in wanted if (i + j) % 2 == 0}
    assert {f.reason for f in found} == {"confirmed by features"} and not {0, 8} & {int(f.path) for f in found}


def test_many_pairs_at_once_or_few(monkeypatch):
    thumbnails = np.repeat(np.random.default_rng(2).integers(0, 256, (20, 256), np.uint8), 3, axis=0)
    whole = sorted(pair[:2] for pair in duplicates._find_similar(thumbnails))
    monkeypatch.setattr(duplicates, "AT_ONCE", 10)
    assert sorted(pair[:2] for pair in duplicates._find_similar(thumbnails)) == whole and len(whole) == 60


def test_one_image_apart_does_not_make_all_others_one_block(monkeypatch):
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, 256)
    thumbnails = np.clip(picture + rng.normal(0, 40, (300, 256)), 0, 255).astype(np.uint8)
    thumbnails[0] = 255 - picture
    whole = sorted(pair[:2] for pair in duplicates._find_similar(thumbnails))
    monkeypatch.setattr(duplicates, "AT_ONCE", 1000)
    blocks = []

    def record(values, k):
        blocks.append(values.size)
        return triu(values, k)

    triu = np.triu
    monkeypatch.setattr(np, "triu", record)
    assert sorted(pair[:2] for pair in duplicates._find_similar(thumbnails)) == whole
    assert max(blocks) <= 2000


def test_near_leaks_of_pictures_that_are_all_alike_are_few():
    thumbnails = np.clip(np.random.default_rng(5).integers(50, 200, 256) + np.random.default_rng(6).normal(0, 1, (60, 256)), 0, 255).astype(np.uint8)
    rows = [Row(str(i), "x", "train" if i < 40 else "valid") for i in range(60)]
    leaks = [finding for finding in duplicates.find_near(rows, [row.path for row in rows], thumbnails) if finding.kind == "near leak"]
    assert len(leaks) <= 60
    assert {finding.path for finding in leaks} == {str(i) for i in range(40, 60)} and {finding.other for finding in leaks} == {str(i) for i in range(40)}


def test_order_of_a_pair_names_the_image_that_judges():
    thumbnails = np.random.default_rng(0).integers(0, 256, (1, 256), np.uint8).repeat(2, axis=0)
    rows = [Row("a", "x", "test"), Row("b", "x", "train")]
    (found,) = duplicates.find_near(rows, ["1", "2"], thumbnails)
    assert (found.kind, found.path, found.other) == ("near leak", "a", "b") and found.value == pytest.approx(1.0)
