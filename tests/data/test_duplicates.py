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


def test_many_pairs_at_once_or_few(monkeypatch):
    thumbnails = np.repeat(np.random.default_rng(2).integers(0, 256, (20, 256), np.uint8), 3, axis=0)
    whole = sorted(pair[:2] for pair in duplicates._find_similar(thumbnails))
    monkeypatch.setattr(duplicates, "AT_ONCE", 10)
    assert sorted(pair[:2] for pair in duplicates._find_similar(thumbnails)) == whole and len(whole) == 60


def test_order_of_a_pair_names_the_image_that_judges():
    thumbnails = np.random.default_rng(0).integers(0, 256, (1, 256), np.uint8).repeat(2, axis=0)
    rows = [Row("a", "x", "test"), Row("b", "x", "train")]
    (found,) = duplicates.find_near(rows, ["1", "2"], thumbnails)
    assert (found.kind, found.path, found.other) == ("near leak", "a", "b") and found.value == pytest.approx(1.0)
