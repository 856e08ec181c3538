"""Confused classes, from a confusion matrix. Without scikit-learn, because reports need no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .types import ConfusedPair


def most_confused(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[ConfusedPair]:
    """Return the off-diagonal cells with images of a confusion matrix, most frequent first; of equal counts, those with the largest share first."""
    matrix = np.array(confusion)
    support = matrix.sum(axis=1)
    pairs = [
        ConfusedPair(classes[i], classes[j], int(matrix[i, j]), float(matrix[i, j] / support[i])) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))
