"""Verdicts on several trainings."""

from __future__ import annotations

from tlfast.evaluation import verdict
from tlfast.evaluation.comparison import ArmDifference, ArmScore


def score(name, accuracy, seconds):
    return ArmScore(name, {}, accuracy, (accuracy - 0.01, accuracy + 0.01), None, accuracy, (0, 1), 5000, 1, seconds, 10, 1.0, 1.0)


def difference(first, second, gain, shown):
    return ArmDifference(first, second, gain, (gain - 0.02, gain + 0.02), gain, (0, 1), 0.0001, 0.0002 if shown else 0.4, shown)


def test_verdicts():
    arms = [score("partial", 0.6, 10.0), score("full", 0.7, 55.0), score("other", 0.695, 60.0)]
    assert verdict.write_verdict(arms[:2], [difference("full", "partial", 0.1, True)]) == (
        "full is better than partial by 10.0 points of accuracy (95 %: 8.0 to 12.0; p < 0.001), in 5.5 times its time, on 5,000 images."
    )
    assert verdict.write_verdict(arms[1:], [difference("full", "other", 0.005, False)]) == (
        "no difference shown between full and other (0.5 points of accuracy (95 %: -1.5 to 2.5; p = 0.400)), on 5,000 images."
    )
    both = verdict.write_verdict(arms, [difference("full", "partial", 0.1, True), difference("full", "other", 0.005, False)])
    assert both.startswith("full is better than partial by") and "; no difference shown between full and other" in both
    assert "corrected p < 0.001)" in both and "corrected p = 0.400)" in both
    assert verdict.write_verdict(arms[:1], []).startswith("partial is right on 60.0% of 5,000 images")


def test_a_verdict_on_a_baseline_names_what_is_better_and_worse():
    arms = [score("plain", 0.6, 10.0), score("long", 0.7, 55.0), score("mixup", 0.5, 60.0), score("ema", 0.605, 10.0)]
    differences = [difference("long", "plain", 0.1, True), difference("plain", "mixup", 0.1, True), difference("ema", "plain", 0.005, False)]
    assert verdict.write_verdict(arms, differences, "plain") == (
        "long is better than plain by 10.0 points of accuracy (95 %: 8.0 to 12.0; corrected p < 0.001); plain is better than mixup by 10.0 points of "
        "accuracy (95 %: 8.0 to 12.0; corrected p < 0.001); no difference shown between plain and ema (0.5 points of accuracy (95 %: -1.5 to 2.5; "
        "corrected p = 0.400)), on 5,000 images."
    )
