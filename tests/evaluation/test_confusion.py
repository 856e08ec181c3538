"""Confused classes."""

from __future__ import annotations

from tlfast.evaluation import most_confused


def test_most_confused_by_count_then_share():
    pairs = most_confused([[2, 1, 0], [0, 2, 0], [1, 0, 0]], ["a", "b", "c"])
    assert [(pair.actual, pair.predicted, pair.count) for pair in pairs] == [("c", "a", 1), ("a", "b", 1)]
    assert [round(pair.share, 2) for pair in pairs] == [1.0, 0.33]
