"""Significance tests: exact McNemar and paired permutation tests, Holm correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import convolve
from scipy.stats import binom

# Two classifiers on the same images


def mcnemar_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return how often two equally good classifiers would differ so unevenly in where they are right, `[s, n]`: s trainings of each, n images.

    Of one training that is McNemar's exact p, of several the exact paired permutation test on the right answers to each image (Fisher 1935):
    whose they are is drawn for each image. It says what other images would change, not other seeds.
    """
    gains = first.sum(axis=0) - second.sum(axis=0)
    chances = np.ones(1)  # of each sum that the draws can have, symmetric around 0
    for gain, count in zip(*np.unique(np.abs(gains), return_counts=True), strict=True):
        if gain:
            own = np.zeros(2 * gain * count + 1)
            own[:: 2 * gain] = binom.pmf(np.arange(count + 1), count, 0.5)
            chances = convolve(chances, own)
    sums = np.arange(len(chances)) - len(chances) // 2
    return float(np.clip(chances[np.abs(sums) >= abs(gains.sum())].sum(), 0.0, 1.0))


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for there being several (Holm 1979), in their order."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted
