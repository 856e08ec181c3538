"""The album of thumbnails of a page."""

from __future__ import annotations

import numpy as np

from tlfast.evaluation.report import album
from tlfast.evaluation.report.inputs import RankedPredictions


def test_no_image_is_decoded_once_the_budget_is_used_up(monkeypatch):
    decoded = []
    monkeypatch.setattr(album, "BUDGET", 250)
    monkeypatch.setattr(album, "make_thumbnail", lambda path: decoded.append(path) or "x" * 100)
    zeros, paths = np.zeros(9, int), [f"{i}.png" for i in range(9)]
    made = album.Album(RankedPredictions(paths, zeros, zeros, zeros + 0.1, zeros + 0.5, zeros + 0.5), ["a", "b"])
    assert made.add_first(range(9), 9) == [0, 1] and len(made.entries) == 2
    assert made.add(1) == 1, "an image of the album can be shown again"
    assert decoded == ["0.png", "1.png", "2.png"]
