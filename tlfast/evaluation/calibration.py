"""Calibration of probabilities: temperature scaling, calibration error, and accuracy against coverage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from .types import Calibration, Coverage, ReliabilityBin

BINS = 15
FOLDS = 5  # folds of the cross-validated temperature
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0  # bounds of the temperature
MIN_ERRORS = 10  # wrong predictions needed to fit a temperature; without any, the fit would drive all probabilities to 1
CURVE_POINTS = 100  # about the number of points stored of the accuracy-coverage curve
TARGETS = (0.9, 0.95, 0.99)  # accuracies of `Calibration.thresholds`
MIN_COVERAGE, MIN_ACCEPTED = 0.01, 20  # share of the images, and number of images, below which a threshold is not reported
BLOCK = 1 << 18  # numbers of a block of rows

# Temperature scaling


@dataclass(frozen=True)
class TemperatureChoice:
    """The temperature of a classifier.

    Attributes:
        temperature: the chosen temperature; 1 leaves the probabilities as they are.
        held_out: probabilities `[n, c]`, those of each image by a temperature fitted on other images, or at temperature 1 if that is chosen.
        rejected: the fitted temperature, if it was not chosen.
    """

    temperature: float
    held_out: np.ndarray
    rejected: float | None = None


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide logits by a temperature: log probabilities `[n, c]` -> probabilities `[n, c]`, float64. The order of the classes does not change."""
    probabilities = np.empty(log_probabilities.shape)
    for block in list_blocks(*log_probabilities.shape):
        np.exp(log_softmax(log_probabilities[block].astype(np.float64) / temperature, axis=1), out=probabilities[block])
    return probabilities


def list_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of the rows of an array `[rows, columns]`, each of about BLOCK numbers: copies of the whole array would need much memory."""
    step = max(1, BLOCK // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the smallest log loss (Guo et al. 2017, arXiv 1706.04599); 1 if fewer than 10 predictions are wrong.

    `log_probabilities` is `[n, c]`, `labels` class indices `[n]`.
    """
    return _minimize_loss(log_probabilities, labels) if _has_enough_errors(log_probabilities, labels) else 1.0


def choose_temperature(log_probabilities: np.ndarray, labels: np.ndarray, seed: int = 0, calibrated: bool | None = None) -> TemperatureChoice:
    """Fit a temperature, and choose it if it improves the log loss without a larger calibration error on images that it was not fitted to.

    `log_probabilities` is `[n, c]`, `labels` class indices `[n]`. `calibrated` is the choice of an earlier evaluation: rounding could change it.
    """
    fitted = fit_temperature(log_probabilities, labels)
    before, held_out = apply_temperature(log_probabilities, 1.0), cross_validate_temperature(log_probabilities, labels, seed)
    correct = log_probabilities.argmax(axis=1) == labels
    errors = [expected_calibration_error(bin_reliability(probabilities.max(axis=1), correct)) for probabilities in (before, held_out)]
    improves = errors[1] <= errors[0] and log_loss(held_out, labels) < log_loss(before, labels)
    if fitted != 1.0 and not (improves if calibrated is None else calibrated):
        return TemperatureChoice(1.0, before, rejected=fitted)
    return TemperatureChoice(fitted, held_out)


def cross_validate_temperature(log_probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return calibrated probabilities `[n, c]`, those of each image by a temperature fitted on other images, in 5 folds.

    They estimate the calibration on new images.
    """
    if not _has_enough_errors(log_probabilities, labels):
        return apply_temperature(log_probabilities, 1.0)
    fold_of = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    result = np.empty(log_probabilities.shape)
    for fold in range(FOLDS):
        held_out = fold_of == fold
        temperature = _minimize_loss(log_probabilities[~held_out], labels[~held_out])
        result[held_out] = apply_temperature(log_probabilities[held_out], temperature)
    return result


def _has_enough_errors(log_probabilities: np.ndarray, labels: np.ndarray) -> bool:
    return int((log_probabilities.argmax(axis=1) != labels).sum()) >= MIN_ERRORS


def _minimize_loss(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    losses = np.empty(len(labels))

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        for block in list_blocks(*log_probabilities.shape):
            scaled = log_softmax(log_probabilities[block].astype(np.float64) / temperature, axis=1)
            losses[block] = -scaled[np.arange(len(scaled)), labels[block]]
        return float(losses.mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)), method="bounded").x))


# Measures of calibration


def measure_calibration(probabilities: np.ndarray, before: np.ndarray, labels: np.ndarray, temperature: float, rejected: float | None = None) -> Calibration:
    """Measure the calibration of probabilities `[n, c]`; `before` `[n, c]` are those at temperature 1, `rejected` a temperature that was not chosen."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins, curve = bin_reliability(confidence, correct), coverage_curve(confidence, correct)
    thinned = curve[:: -(-len(curve) // CURVE_POINTS)]
    return Calibration(
        temperature=temperature,
        error=expected_calibration_error(bins),
        error_before=expected_calibration_error(bin_reliability(before.max(axis=1), correct)),
        log_loss_before=log_loss(before, labels),
        brier_before=brier_score(before, labels),
        bins=bins,
        curve=thinned if thinned[-1] == curve[-1] else [*thinned, curve[-1]],
        thresholds=_find_thresholds(curve, len(labels)),
        rejected=rejected,
    )


def _find_thresholds(curve: list[Coverage], images: int) -> dict[str, Coverage]:
    """Return the point for each target accuracy, unless it covers too few images to be useful."""
    least = max(MIN_COVERAGE, MIN_ACCEPTED / images)
    points = {f"{target:g}": threshold_at_accuracy(curve, target) for target in TARGETS}
    return {target: point for target, point in points.items() if point and point.coverage >= least}


def bin_reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[ReliabilityBin]:
    """Group images into bins of equal width by confidence `[n]`; `correct` `[n]` marks correct predictions. Empty bins are left out."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # the upper edge belongs to a bin, as in Guo et al.
    counts = np.bincount(place, minlength=bins)
    sums, hits = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct))
    return [ReliabilityBin(i / bins, (i + 1) / bins, int(counts[i]), float(sums[i] / counts[i]), float(hits[i] / counts[i])) for i in np.flatnonzero(counts)]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the mean distance between confidence and accuracy, weighted by images (Naeini et al. 2015; Guo et al. 2017)."""
    total = sum(b.images for b in bins)
    return sum(b.images * abs(b.confidence - b.accuracy) for b in bins) / total


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of minus the log of the probability of the true class, `[n, c]` and `[n]`."""
    return float(cross_entropy(probabilities, labels).mean())


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log loss of each image `[n]`; probabilities are clipped at the machine epsilon of float64, as in scikit-learn."""
    return np.asarray(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1)))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score over all classes (Brier 1950), from 0 to 2, of `[n, c]` and `[n]`."""
    return float(squared_errors(probabilities, labels).mean())


def squared_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sum over the classes of the squared differences between probability and truth, for each image `[n]`."""
    squares = np.concatenate([(probabilities[block] ** 2).sum(axis=1) for block in list_blocks(*probabilities.shape)])
    return np.asarray(squares - 2 * probabilities[np.arange(len(labels)), labels] + 1)


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> list[Coverage]:
    """Return coverage and accuracy with each distinct confidence as the threshold, highest threshold first.

    `confidence` `[n]` is the probability of the predicted class; `correct` `[n]` marks correct predictions.
    """
    order = np.argsort(-confidence, kind="stable")
    descending, hits = confidence[order], np.cumsum(correct[order])
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # images of equal confidence are accepted together
    return [Coverage(float(descending[i]), float((i + 1) / len(descending)), float(hits[i] / (i + 1))) for i in last]


def threshold_at_accuracy(curve: list[Coverage], accuracy: float) -> Coverage | None:
    """Return the point of largest coverage with at least this accuracy; None if no threshold reaches it."""
    good = [point for point in curve if point.accuracy >= accuracy]
    return max(good, key=lambda point: point.coverage) if good else None
