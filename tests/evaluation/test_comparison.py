"""Folds that are merged, and learning curves that cross."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tlfast.core import Settings
from tlfast.evaluation import comparison, verdict
from tlfast.evaluation.comparison import CurvePoint


def test_where_curves_cross():
    def points(arm, *accuracies):
        return [CurvePoint(arm, share, 0, accuracy, (0, 1)) for share, accuracy in zip((0.05, 0.5, 1.0), accuracies, strict=True)]

    (found,) = comparison.find_crossings([*points("partial", 0.5, 0.6, 0.62), *points("full", 0.4, 0.7, 0.8)])
    assert (found.better_below, found.better_above) == ("partial", "full")
    assert found.share == pytest.approx(0.05 * 10**0.5)  # halfway on a logarithmic scale
    assert comparison.find_crossings([*points("a", 0.5, 0.6, 0.7), *points("b", 0.4, 0.5, 0.6)]) == []
    (found,) = comparison.find_crossings([*points("a", 0.5, 0.6, 0.7), *points("b", 0.4, 0.6, 0.8)])
    assert (found.better_below, found.share) == ("a", 0.5)  # equal there
    assert comparison.find_crossings([*points("a", 0.5, 0.6, 0.7), *points("b", 0.4, 0.6, 0.6)]) == []  # equal, but no crossing


def test_arms_with_equally_many_correct_predictions_have_equal_accuracies():
    """The mean over seeds of 0.3 and 0.6 is less than that of 0.4 and 0.5 in floating point."""
    scores = []
    for name, hits in (("a", (3, 6)), ("b", (4, 5))):
        labels = np.zeros(10, int)
        predicted = np.array([[int(i >= hit) for i in range(10)] for hit in hits])
        predictions = comparison.ArmPredictions(predicted, labels, [str(i) for i in range(10)], [])
        arm = comparison.Arm(name, Settings(task="t"))
        outcome = comparison.Outcome({}, {}, 1.0, 2, False)
        f1 = comparison.measure_macro_f1(predictions, 2)
        scores.append(comparison.score_arm(arm, replace(predictions, outcomes=[outcome]), f1, comparison.Cost(1, 1.0, 1.0)))
    assert scores[0].accuracy == scores[1].accuracy == 0.45


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
