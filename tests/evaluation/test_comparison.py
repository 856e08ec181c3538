"""Verdicts on several trainings, and where their learning curves cross."""

from __future__ import annotations

import pytest

from tlfast.evaluation import comparison
from tlfast.evaluation.comparison import ArmDifference, ArmScore, CurvePoint


def score(name, accuracy, seconds):
    return ArmScore(name, {}, accuracy, (accuracy - 0.01, accuracy + 0.01), None, accuracy, (0, 1), 5000, 1, seconds, 10, 1.0, 1.0)


def difference(first, second, gain, shown):
    return ArmDifference(first, second, gain, (gain - 0.02, gain + 0.02), gain, (0, 1), 0.0001, 0.0002 if shown else 0.4, shown)


def test_verdicts():
    arms = [score("partial", 0.6, 10.0), score("full", 0.7, 55.0), score("other", 0.695, 60.0)]
    assert comparison.write_verdict(arms[:2], [difference("full", "partial", 0.1, True)]) == (
        "full is better than partial by 10.0 points of accuracy (95 %: 8.0 to 12.0; p < 0.001), in 5.5 times its time, on 5,000 images."
    )
    assert comparison.write_verdict(arms[1:], [difference("full", "other", 0.005, False)]) == (
        "no difference shown between full and other (0.5 points of accuracy (95 %: -1.5 to 2.5; p = 0.400)), on 5,000 images."
    )
    both = comparison.write_verdict(arms, [difference("full", "partial", 0.1, True), difference("full", "other", 0.005, False)])
    assert both.startswith("full is better than partial by") and "; no difference shown between full and other" in both
    assert comparison.write_verdict(arms[:1], []).startswith("partial is right on 60.0% of 5,000 images")


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
    assert comparison.describe_design(design, merged) == text
    assert dict(zip(merged.paths, merged.predicted[0].tolist(), strict=True))["b"] == ("b" in paths[1])
