"""Bootstrap confidence intervals, of the figures of one classifier and of the difference between two on the same images.

Images are resampled within each actual class: the stratified percentile bootstrap (Efron and Tibshirani 1993). Images of one group, such as a day or a
person, are alike; for statements about other groups, whole groups are resampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from ..core.metrics import Counts, apply_metrics, macro_f1

REPLICATES = 1000
LEVEL = 0.95
MIN_GROUPS = 10  # fewer differ too little between bootstrap samples
BLOCK = 4_000_000  # most numbers drawn at a time: 32 MB

# One classifier


def bootstrap_intervals(confusion: np.ndarray, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the bootstrap 95 % interval of each metric of a confusion matrix `[c, c]`.

    The counts of a resampled class are multinomial, so whole rows of the matrix are drawn instead of images. If all replicates have the same
    accuracy, as for a network that predicts one class only, its interval is Wilson's. Other metrics that are the same in all replicates have none.
    """
    rng, shares, classes = np.random.default_rng(seed), list(_list_shares(confusion)), len(confusion)
    step = max(1, BLOCK // classes**2)  # the random numbers of each replicate depend on it
    blocks = [apply_metrics(_resample(rng, shares, classes, stop - start)) for start, stop in _ranges(REPLICATES, step)]
    intervals = _summarize(blocks)
    return {"accuracy": wilson_interval(int(np.trace(confusion)), int(confusion.sum())), **intervals}


def group_intervals(labels: np.ndarray, predicted: np.ndarray, groups: Sequence[str], classes: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the bootstrap 95 % interval of each metric, with groups of images resampled in place of images.

    The cluster bootstrap (Davison and Hinkley 1997, section 3.8). `labels` and `predicted` are class indices `[n]`, `groups` has the group of each image.
    A metric that is the same in all replicates has no interval, the accuracy Wilson's, with each group as one observation.
    """
    intervals, count = _summarize(list(_resample_groups(labels, predicted, groups, classes, seed))), len(set(groups))
    return {"accuracy": wilson_interval(round(float((labels == predicted).mean()) * count), count), **intervals}


def _summarize(blocks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
    """Return the interval of each metric that differs between the replicates."""
    intervals = {name: find_interval(np.concatenate([block[name] for block in blocks])) for name in blocks[0]}
    return {name: interval for name, interval in intervals.items() if interval}


def _resample_groups(labels: np.ndarray, predicted: np.ndarray, groups: Sequence[str], classes: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the metrics of bootstrap samples of groups, in blocks. The same seed and groups give the same samples."""
    members, count = number_groups(groups)
    correct, rng = labels == predicted, np.random.default_rng(seed)
    places = ((members, labels), (members, predicted), (members[correct], labels[correct]))
    tables = [csr_matrix((np.ones(len(rows), np.int64), (rows, columns)), shape=(count, classes)) for rows, columns in places]
    for start, stop in _ranges(REPLICATES, max(1, BLOCK // max(classes, count))):
        drawn = _draw_groups(rng, count, stop - start)
        yield apply_metrics(Counts(*(drawn @ table for table in tables)))


def number_groups(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """Return the number of the group of each image `[n]`, and how many groups there are."""
    names, members = np.unique(groups, return_inverse=True)
    return members, len(names)


def _draw_groups(rng: np.random.Generator, count: int, samples: int) -> np.ndarray:
    """Return how often each of `count` groups is drawn in each of some bootstrap samples, `[samples, count]`."""
    return rng.multinomial(count, np.full(count, 1 / count), size=samples)


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, doi 10.1214/ss/1009213286).

    >>> low, high = wilson_interval(0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.278)
    """
    z, share = 1.959964, hits / total
    middle, spread = share + z**2 / (2 * total), z * (share * (1 - share) / total + z**2 / (4 * total**2)) ** 0.5
    low, high = ((middle + sign * spread) / (1 + z**2 / total) for sign in (-1, 1))
    return 0.0 if hits == 0 else low, 1.0 if hits == total else high  # exactly, without rounding errors


@dataclass(frozen=True)
class _ClassShares:
    """The predictions for the images of one class, from which the bootstrap draws.

    Attributes:
        label: index of the class.
        images: number of its images.
        columns: indices of the classes that are predicted, and of the last class: with it, the random numbers are those for all classes.
        shares: share of each of them.
        place: place of the class in `columns`; None if it is never predicted correctly.
    """

    label: int
    images: int
    columns: np.ndarray
    shares: np.ndarray
    place: int | None


def _list_shares(confusion: np.ndarray) -> Iterator[_ClassShares]:
    """Yield the shares of each class with images, from a confusion matrix `[c, c]`."""
    for label in np.flatnonzero(confusion.sum(axis=1)).tolist():
        row = confusion[label]
        columns = np.union1d(np.flatnonzero(row), [len(row) - 1])
        yield _ClassShares(label, int(row.sum()), columns, row[columns] / row.sum(), int(np.searchsorted(columns, label)) if row[label] else None)


def _resample(rng: np.random.Generator, shares: Sequence[_ClassShares], classes: int, count: int) -> Counts:
    """Draw the counts of `count` confusion matrices with the same number of images of each class."""
    actual, predicted, correct = np.zeros(classes, np.int64), np.zeros((count, classes), np.int64), np.zeros((count, classes), np.int64)
    for each in shares:
        drawn = rng.multinomial(each.images, each.shares, size=count)
        actual[each.label] = each.images
        predicted[:, each.columns] += drawn
        if each.place is not None:
            correct[:, each.label] = drawn[:, each.place]
    return Counts(np.broadcast_to(actual, (count, classes)), predicted, correct)


def mean_interval(values: np.ndarray, labels: np.ndarray, seed: int = 0, groups: Sequence[str] = ()) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the mean of `values` `[n]`, images resampled within the classes of `labels` `[n]`, or by their groups."""
    rng = np.random.default_rng(seed)
    if groups:
        members, count = number_groups(groups)
        totals = np.stack([np.bincount(members, values, count), np.bincount(members, minlength=count)], axis=1)
        drawn = [_draw_groups(rng, count, stop - start) @ totals for start, stop in _ranges(REPLICATES, max(1, BLOCK // count))]
        total, size = np.concatenate(drawn).T
        return percentile_interval(total / size)
    sums = np.zeros(REPLICATES)
    for label in np.unique(labels):
        members = values[labels == label]
        for start, stop in _ranges(REPLICATES, max(1, BLOCK // len(members))):
            sums[start:stop] += members[rng.integers(len(members), size=(stop - start, len(members)))].sum(axis=1)
    return percentile_interval(sums / len(values))


def accuracy_interval(correct: np.ndarray, labels: np.ndarray, groups: Sequence[str] = ()) -> tuple[float, float]:
    """Return the interval of an accuracy as `mean_interval` does; Wilson's, with each image or group as one observation, if all samples are the same.

    `correct` `[n]` is the share of the predictions of an image that are correct.
    """
    low, high = mean_interval(correct, labels, groups=groups)
    count = len(set(groups)) or len(correct)
    return wilson_interval(round(low * count), count) if low == high else (low, high)


def _ranges(total: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, total)) for start in range(0, total, step))


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the central 95 % of bootstrap replicates `[b]`."""
    low, high = np.percentile(replicates, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def find_interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """Return the central 95 % of bootstrap replicates `[b]`; None if they are all the same and tell nothing about the uncertainty."""
    low, high = percentile_interval(replicates)
    return (low, high) if low < high else None


# Two classifiers on the same images


def paired_interval(first: np.ndarray, second: np.ndarray, labels: np.ndarray, seed: int = 0, groups: Sequence[str] = ()) -> tuple[float, float, float]:
    """Return the mean of `first - second` and its bootstrap 95 % interval, over images or over their groups: (difference, low, high).

    Both are values per image `[n]` in the same order, for example 1 for a correct prediction and 0 for a wrong one. Pairing removes the variance
    between easy and difficult images. If all samples have the same difference, such as none, each side of the interval is as wide as Wilson's interval of
    no event, with each image or group as one observation.
    """
    difference = first.astype(float) - second
    mean, (low, high) = float(difference.mean()), mean_interval(difference, labels, seed, groups)
    if low == high:
        width = wilson_interval(0, len(set(groups)) or len(difference))[1]
        low, high = max(-1.0, mean - width), min(1.0, mean + width)
    return mean, low, high


def bootstrap_macro_f1(predicted: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0, groups: Sequence[str] = ()) -> np.ndarray:
    """Return bootstrap replicates `[REPLICATES]` of the macro F1, the mean over several predictions of each image.

    `predicted` is class indices `[s, n]`, `labels` `[n]`. The same seed draws the same images, so that the replicates of two classifiers can be
    subtracted. With `groups`, groups of images are drawn.
    """
    if groups:
        by_seed = [np.concatenate([block["macro_f1"] for block in _resample_groups(labels, row, groups, classes, seed)]) for row in predicted]
        return np.asarray(np.mean(by_seed, axis=0))
    rng, replicates = np.random.default_rng(seed), np.empty(REPLICATES)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for i in range(REPLICATES):
        drawn = np.concatenate([images[rng.integers(len(images), size=len(images))] for images in members])
        replicates[i] = macro_f1(Counts.of_classes(labels[drawn], predicted[:, drawn], classes)).mean()
    return replicates
