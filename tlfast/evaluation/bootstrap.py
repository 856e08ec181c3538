"""How sure a figure is: bootstrap intervals from a confusion matrix, and two classifiers compared on the same images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..core.metrics import compute_metrics

REPLICATES = 1000
LEVEL = 0.95
AT_ONCE = 4_000_000  # numbers drawn together: 32 MB


def bootstrap_intervals(confusion: np.ndarray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return a bootstrap 95 % interval of each figure of a confusion matrix `[c, c]`.

    The bootstrap draws the images of each actual class anew, as many as there are (Efron and Tibshirani 1993, stratified, percentiles).
    Of such a draw only the counts matter, and those are multinomial row by row: no image need be drawn. Where all draws are the same, as where a
    network gives one answer to all, the accuracy's interval is Wilson's.
    """
    rng, size = np.random.default_rng(seed), len(confusion)
    step = max(1, AT_ONCE // size**2)
    blocks = [compute_metrics(_resample(rng, confusion, min(step, REPLICATES - start))) for start in range(0, REPLICATES, step)]
    found = {name: percentile_interval(np.concatenate([block[name] for block in blocks])) for name in blocks[0]}
    if found["accuracy"][0] == found["accuracy"][1]:
        found["accuracy"] = wilson_interval(int(np.trace(confusion)), int(confusion.sum()))
    return found


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927; Brown, Cai and DasGupta 2001, doi 10.1214/ss/1009213286)."""
    z, share = 1.959964, hits / total
    middle, spread = share + z**2 / (2 * total), z * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    return max(0.0, (middle - spread) / (1 + z**2 / total)), min(1.0, (middle + spread) / (1 + z**2 / total))


def _resample(rng: np.random.Generator, confusion: np.ndarray, count: int) -> np.ndarray:
    drawn = np.zeros((count, *confusion.shape), np.int64)
    for i, row in enumerate(confusion):
        if row.sum():
            drawn[:, i] = rng.multinomial(row.sum(), row / row.sum(), size=count)
    return drawn


def mean_interval(values: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return a bootstrap 95 % interval of the mean of `values` `[n]`, the images of each class in `labels` `[n]` drawn anew."""
    rng, sums = np.random.default_rng(seed), np.zeros(REPLICATES)
    for label in np.unique(labels):
        own = values[labels == label]
        for start, stop in _steps(REPLICATES, max(1, AT_ONCE // len(own))):
            sums[start:stop] += own[rng.integers(len(own), size=(stop - start, len(own)))].sum(axis=1)
    return percentile_interval(sums / len(values))


def _steps(total: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, total)) for start in range(0, total, step))


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of bootstrap replicates `[b]`."""
    low, high = np.percentile(replicates, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


# Two classifiers on the same images


def paired_interval(first: np.ndarray, second: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Return how much larger the mean of `first` `[n]` is than that of `second` `[n]`, and its bootstrap 95 % interval.

    Both hold a value for the same image at the same place (1 and 0 for right and wrong, say), so that what makes an image easy or hard for
    both does not widen the interval.
    """
    difference = first.astype(float) - second
    return float(difference.mean()), *mean_interval(difference, labels, seed)


def bootstrap_macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    """Return the macro F1 `[REPLICATES]` of bootstrap draws of the images, class by class; the mean over several predictions of each.

    `predicted` is `[s, n]` class indices, `labels` `[n]`. The same seed draws the same images, so that two classifiers' replicates can be
    subtracted.
    """
    rng, found = np.random.default_rng(seed), np.empty(REPLICATES)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    cells = labels * classes + predicted
    for i in range(REPLICATES):
        drawn = np.concatenate([own[rng.integers(len(own), size=len(own))] for own in members])
        confusions = [np.bincount(row[drawn], minlength=classes**2).reshape(classes, classes) for row in cells]
        found[i] = compute_metrics(np.array(confusions))["macro_f1"].mean()
    return found
