"""Measured values of images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tlfast.data import scan


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
