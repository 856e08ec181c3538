from __future__ import annotations

import numpy as np
import pytest

from tlfast.evaluation import evaluate, most_confused


def one_hot(predicted, classes, sure=0.8):
    rest = (1 - sure) / (classes - 1)
    return np.array([[sure if j == p else rest for j in range(classes)] for p in predicted], np.float32)


def test_a_case_worked_by_hand():
    #        labels   0 0 0 1 1 2      predicted 0 0 1 1 1 0
    result = evaluate(one_hot([0, 0, 1, 1, 1, 0], 3), np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"], "valid")
    assert result.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    a, b, c = result.per_class
    assert (a.precision, a.recall, a.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (b.precision, b.recall, b.f1) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert (c.precision, c.recall, c.f1, c.support) == (0.0, 0.0, 0.0, 1)
    assert result.macro.f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert result.weighted.f1 == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)
    assert result.log_loss == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6, abs=1e-6)


def test_most_confused_by_count_then_share():
    result = evaluate(one_hot([0, 0, 1, 1, 1, 0], 3), np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"], "valid")
    pairs = [(p.actual, p.predicted, p.count) for p in most_confused(result)]
    assert pairs == [("c", "a", 1), ("a", "b", 1)]
    assert most_confused(result, least=2) == []


def test_a_class_that_does_not_occur_counts_in_no_average():
    result = evaluate(one_hot([0, 1], 3), np.array([0, 1]), ["a", "b", "c"], "valid")
    assert result.macro.f1 == 1.0 and result.balanced_accuracy == 1.0 and result.per_class[2].support == 0
