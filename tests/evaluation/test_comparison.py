"""Folds that are merged, and learning curves that cross."""

from __future__ import annotations

import pytest

from tlfast.evaluation import comparison, verdict
from tlfast.evaluation.comparison import CurvePoint


def test_where_curves_cross():
    def points(arm, *accuracies):
        return [CurvePoint(arm, share, 0, accuracy, (0, 1)) for share, accuracy in zip((0.05, 0.5, 1.0), accuracies, strict=True)]

    (found,) = comparison.find_crossings([*points("partial", 0.5, 0.6, 0.62), *points("full", 0.4, 0.7, 0.8)])
    assert (found.better_below, found.better_above) == ("partial", "full")
    assert found.share == pytest.approx(0.05 * 10**0.5)  # halfway on a logarithmic scale
    assert comparison.find_crossings([*points("a", 0.5, 0.6, 0.7), *points("b", 0.4, 0.5, 0.6)]) == []


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        ([["a", "b"], ["c", "d"]], "2 folds, each image evaluated once: 4 images"),
        ([["a", "b"], ["b", "c"]], "2 folds with common images, each image evaluated in its last fold: 3 images"),
    ],
)
def test_images_in_several_folds_are_counted_once(paths, text):
    outcomes = [comparison.Outcome(dict.fromkeys(part, 0), dict.fromkeys(part, fold), 1.0, 2, False) for fold, part in enumerate(paths)]
    design = comparison.Design(folds=2)
    merged = comparison.merge_folds(outcomes, design)
    assert verdict.describe_design(design, merged) == text
    assert dict(zip(merged.paths, merged.predicted[0].tolist(), strict=True))["b"] == ("b" in paths[1])
