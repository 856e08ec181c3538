"""Measured values of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tlfast.core import Progress, ignore_event
from tlfast.data import scan
from tlfast.data.types import Row


@pytest.mark.parametrize("kind", ["noise", "grey", "constant", "one pixel"])
def test_the_spread_is_that_of_all_pixels(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    if kind != "noise":
        pixels[:] = [10, 20, 250]
    if kind == "grey":
        pixels[:20] = 11
    if kind == "one pixel":
        pixels[0, 0, 1] = 21
    Image.fromarray(pixels).save(tmp_path / "a.png")
    measured = scan._measure_image(str(tmp_path / "a.png"))
    assert measured.spread == pytest.approx(pixels.std(axis=(0, 1)).max(), abs=1e-9) and measured.constant == (kind == "constant")


def test_nearly_equal_images_are_compared_once_with_progress(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    picture = rng.integers(20, 230, (32, 32, 3), np.uint8)
    rows = [Row(str(tmp_path / f"{name}.png"), "x", "train") for name in "abc"]
    for row, pixels in zip(rows, (picture, picture + 3, rng.integers(0, 256, (32, 32, 3), np.uint8)), strict=True):
        Image.fromarray(pixels).save(row.path)
    scanned = scan.scan_images([row.path for row in rows], ignore_event)
    events = []
    found = scan.collect_findings(rows, scanned, events.append)
    assert [(finding.kind, finding.path) for finding in found] == [("near duplicate", rows[1].path)]
    assert events == [Progress("comparing images", 3, 3)]
    assert scan.collect_findings(rows, scanned, events.append) == found and len(events) == 1
    moved = [rows[0], replace(rows[1], split="valid"), rows[2]]
    assert [finding.kind for finding in scan.collect_findings(moved, scanned, events.append)] == ["near leak"] and len(events) == 2
