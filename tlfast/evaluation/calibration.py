"""Whether probabilities mean what they say: temperature scaling, calibration error, and what may be answered at which confidence."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from .types import Calibration, Coverage, ReliabilityBin

BINS = 15
PARTS = 5  # of the images, each calibrated by a temperature fitted on the others
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
LEAST_WRONG = 10  # answers, below which a temperature would be fitted to chance: with none wrong it would make every answer certain
CURVE = 100  # points of the curve of accuracy against coverage
PROMISES = (0.9, 0.95, 0.99)
LEAST_COVERAGE, LEAST_ANSWERED = 0.01, 20  # share of the images, and images, below which a promise is of no use or rests on too few of them


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide logits by a temperature: log probabilities `[n, c]` -> probabilities `[n, c]`, float64. The likeliest class stays the likeliest."""
    return np.exp(log_softmax(log_probabilities.astype(np.float64) / temperature, axis=1))


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that makes the labels `[n]` likeliest (Guo et al. 2017, arXiv 1706.04599); 1 where fewer than 10 answers are wrong."""
    return _fit_temperature(log_probabilities.astype(np.float64), labels) if _has_enough_errors(log_probabilities, labels) else 1.0


def _has_enough_errors(log_probabilities: np.ndarray, labels: np.ndarray) -> bool:
    return (log_probabilities.argmax(axis=1) != labels).sum() >= LEAST_WRONG


def _fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -log_softmax(log_probabilities / np.exp(log_temperature), axis=1)[rows, labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded").x))


def cross_validate_temperature(log_probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return probabilities `[n, c]`, each image's by a temperature that was fitted without it: what calibration is worth on new images."""
    if not _has_enough_errors(log_probabilities, labels):
        return apply_temperature(log_probabilities, 1.0)
    part = np.random.default_rng(seed).permutation(len(labels)) % PARTS
    result = np.empty(log_probabilities.shape)
    for number in range(PARTS):
        inside = part == number
        result[inside] = apply_temperature(log_probabilities[inside], _fit_temperature(log_probabilities[~inside].astype(np.float64), labels[~inside]))
    return result


def measure_calibration(probabilities: np.ndarray, before: np.ndarray, labels: np.ndarray, temperature: float) -> Calibration:
    """Describe how far probabilities `[n, c]` can be believed; `before` are those at temperature 1."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins, curve = bin_reliability(confidence, right), coverage_curve(confidence, right)
    least = max(LEAST_COVERAGE, LEAST_ANSWERED / len(right))
    kept = curve[:: -(-len(curve) // CURVE)]
    return Calibration(
        temperature=temperature,
        error=expected_calibration_error(bins),
        error_before=expected_calibration_error(bin_reliability(before.max(axis=1), right)),
        log_loss_before=log_loss(before, labels),
        brier_before=brier_score(before, labels),
        bins=bins,
        curve=kept if kept[-1] == curve[-1] else [*kept, curve[-1]],
        promises={f"{promise:g}": found for promise in PROMISES if (found := threshold_at_accuracy(curve, promise)) and found.coverage >= least},
    )


def bin_reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[ReliabilityBin]:
    """Sort images into bins of equal width by the probability of their likeliest class; empty bins are left out."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # a bin holds its upper edge, as Guo et al. have it
    counts = np.bincount(place, minlength=bins)
    sums, hits = (np.bincount(place, weights=values, minlength=bins) for values in (confidence, right))
    return [ReliabilityBin(i / bins, (i + 1) / bins, int(counts[i]), float(sums[i] / counts[i]), float(hits[i] / counts[i])) for i in np.flatnonzero(counts)]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the expected calibration error (Naeini et al. 2015; Guo et al. 2017): how far confidence and accuracy lie apart, over all images."""
    total = sum(each.images for each in bins)
    return sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / total


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of minus the log of the true class's probability."""
    return float(cross_entropy(probabilities, labels).mean())


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each image's log loss `[n]`; a probability of 0 counts as the least that float64 holds apart from 1."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the Brier score over all classes (Brier 1950), from 0 to 2."""
    return float(squared_errors(probabilities, labels).mean())


def squared_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each image's sum of squared differences between its probabilities and the truth `[n]`."""
    return (probabilities**2).sum(axis=1) - 2 * probabilities[np.arange(len(labels)), labels] + 1


def coverage_curve(confidence: np.ndarray, right: np.ndarray) -> list[Coverage]:
    """Return, for each confidence as a threshold, the share of images that reach it and the share of those that are right; highest first."""
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))  # images of one confidence are answered together
    return [Coverage(float(sure[i]), float((i + 1) / len(sure)), float(hits[i] / (i + 1))) for i in last]


def threshold_at_accuracy(curve: list[Coverage], accuracy: float) -> Coverage | None:
    """Return the point of a curve that answers most images while that share of the answers is right; None where no threshold does."""
    good = [point for point in curve if point.accuracy >= accuracy]
    return max(good, key=lambda point: point.coverage) if good else None
