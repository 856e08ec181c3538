"""Tests of significance, against worked examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm

from tlfast.evaluation import significance


def test_mcnemar_by_hand():
    first = np.array([True] * 8 + [False] * 2 + [True] * 50)
    second = np.array([False] * 8 + [True] * 2 + [True] * 50)
    # 10 images on which one is right only, 8 of them the first's: two-sided 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert significance.mcnemar_test(first[None], second[None]) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert significance.mcnemar_test(first[None], first[None]) == 1.0


def test_mcnemar_of_several_trainings_is_the_paired_permutation_test():
    rng = np.random.default_rng(3)
    easy = rng.random(9)
    first, second = rng.random((3, 9)) < easy + 0.2, rng.random((3, 9)) < easy - 0.1
    gains = first.sum(axis=0) - second.sum(axis=0)
    drawn = [abs((gains * signs).sum()) >= abs(gains.sum()) for signs in itertools.product((1, -1), repeat=9)]
    assert 0.0 < np.mean(drawn) < 0.9, "or it tells nothing apart"
    assert significance.mcnemar_test(first, second) == pytest.approx(np.mean(drawn))
    assert significance.mcnemar_test(np.repeat(first[:1], 3, axis=0), np.repeat(second[:1], 3, axis=0)) == pytest.approx(
        significance.mcnemar_test(first[:1], second[:1])
    )


def test_groups_are_swapped_as_a_whole():
    rng = np.random.default_rng(4)
    groups = list("aaabbcccdddd")
    first, second = rng.random((2, 12)) < 0.9, rng.random((2, 12)) < 0.4
    gains = np.array([(first[:, members].sum() - second[:, members].sum()) for name in "abcd" for members in [np.array(groups) == name]])
    drawn = [abs((gains * signs).sum()) >= abs(gains.sum()) for signs in itertools.product((1, -1), repeat=4)]
    assert significance.mcnemar_test(first, second, groups) == pytest.approx(np.mean(drawn)) != significance.mcnemar_test(first, second)
    each = [str(n) for n in range(12)]
    assert significance.mcnemar_test(first, second, each) == pytest.approx(significance.mcnemar_test(first, second))


def test_mcnemar_of_many_images():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 50_000)) < 0.8, rng.random((3, 50_000)) < 0.8
    z = (gains := first.sum(axis=0) - second.sum(axis=0)).sum() / np.sqrt((gains**2).sum())
    assert significance.mcnemar_test(first, second) == pytest.approx(2 * norm.sf(abs(z)), abs=0.005)


def test_holm_by_hand():
    assert significance.holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm_correction([0.6, 0.9]) == [1.0, 1.0]
