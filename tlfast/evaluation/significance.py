"""Significance tests for classifiers on the same images: exact McNemar and paired permutation tests, Holm correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import convolve
from scipy.stats import binom

from .bootstrap import number_groups


def mcnemar_test(first: np.ndarray, second: np.ndarray, groups: Sequence[str] = ()) -> float:
    """Return the two-sided p-value of the hypothesis that two classifiers are equally accurate.

    `first` and `second` mark correct predictions, `[s, n]` for s trainings and n images in the same order. With one training each, this is McNemar's
    exact test. With several, it is the exact paired permutation test (Fisher 1935) on the number of correct predictions of each image, which are
    swapped between the classifiers image by image; with `groups`, the group of each image, group by group. The test covers the choice of images, not
    that of seeds.

    >>> round(mcnemar_test(np.array([[1, 1, 1, 1, 1]]), np.array([[0, 0, 0, 0, 0]])), 4)
    0.0625
    """
    gains = first.sum(axis=0) - second.sum(axis=0)
    if groups:
        gains = np.bincount(number_groups(groups)[0], gains).round().astype(int)
    distribution = np.ones(1)  # of the sum of the gains under random signs, symmetric around 0
    for gain, count in zip(*np.unique(np.abs(gains), return_counts=True), strict=True):
        if gain:
            term = np.zeros(2 * gain * count + 1)
            term[:: 2 * gain] = binom.pmf(np.arange(count + 1), count, 0.5)
            distribution = convolve(distribution, term)
    sums = np.arange(len(distribution)) - len(distribution) // 2
    return float(np.clip(distribution[np.abs(sums) >= abs(gains.sum())].sum(), 0.0, 1.0))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests (Holm 1979), in the order given.

    >>> holm_correction([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
