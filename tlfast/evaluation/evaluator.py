"""Evaluation of predictions: all figures from one pass over the images. Metrics are declared in `core/metrics.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn import metrics as skm

from ..core import OnEvent, Progress, TrainingError, ignore_event
from ..core.metrics import compute_metrics, confusion_matrix
from ..data import Row
from . import bootstrap, calibration
from .types import FIELD_METRICS, ClassScore, Evaluation, Predictions

TOP = (3, 5)  # values of k for top-k accuracy
PHASE, STEPS = "computing metrics", 3  # of the progress: temperature, metrics of probabilities, intervals


def evaluate(
    predictions: Predictions,
    split: str,
    temperature: float | None = None,
    seed: int = 0,
    calibrated: bool | None = None,
    on_event: OnEvent = ignore_event,
) -> Evaluation:
    """Compute all figures of predictions: those of `core.metrics.METRICS`, from the confusion matrix, with intervals, and others as in scikit-learn.

    `temperature` divides the logits. Without it a temperature is chosen, and the probabilities of each image come from one fitted on other images, so
    that the figures hold for new images; `calibrated` repeats the choice of an earlier evaluation. Averages are over the classes that occur among
    labels or predictions; a class without predictions has precision 0. Raises TrainingError if the network predicts NaN.
    """
    logits, labels, classes = predictions.log_probabilities, predictions.labels, predictions.classes
    _check_numbers(logits)
    on_event(Progress(PHASE, 0, STEPS))
    if temperature:
        choice = calibration.TemperatureChoice(temperature, calibration.apply_temperature(logits, temperature))
    else:
        choice = calibration.choose_temperature(logits, labels, seed, calibrated)
    probabilities, uncalibrated = choice.held_out, calibration.apply_temperature(logits, 1.0)
    on_event(Progress(PHASE, 1, STEPS))
    predicted, indices = logits.argmax(axis=1), list(range(len(classes)))
    by_class = skm.precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    confusion = confusion_matrix(labels, predicted, len(classes))
    values = {name: float(value) for name, value in compute_metrics(confusion).items()}
    roc_auc, average_precision = _ranking_metrics(probabilities, labels)
    on_event(Progress(PHASE, 2, STEPS))
    groups = list_groups(predictions.rows)
    evaluation = Evaluation(
        split=split,
        classes=list(classes),
        accuracy=values["accuracy"],
        balanced_accuracy=values["balanced_accuracy"],
        log_loss=calibration.log_loss(probabilities, labels),
        macro=ClassScore("macro", values["macro_precision"], values["macro_recall"], values["macro_f1"], len(labels)),
        weighted=_weighted_score(labels, predicted),
        per_class=[ClassScore(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in zip(classes, *by_class, strict=True)],
        confusion=confusion.tolist(),
        top={str(k): _count_top(probabilities, labels, k) / len(labels) for k in TOP if k < len(classes)},
        kappa=values["kappa"],
        mcc=values["mcc"],
        roc_auc=roc_auc,
        average_precision=average_precision,
        brier=calibration.brier_score(probabilities, labels),
        intervals=_bootstrap_intervals(confusion, probabilities, labels, seed),
        calibration=calibration.measure_calibration(probabilities, uncalibrated, labels, choice.temperature, choice.rejected),
        others={name: value for name, value in values.items() if name not in FIELD_METRICS},
        groups=len(set(groups)),
        group_intervals=bootstrap.group_intervals(labels, predicted, groups, len(classes), seed) if are_enough(groups) else {},
    )
    on_event(Progress(PHASE, STEPS, STEPS))
    return evaluation


def _check_numbers(logits: np.ndarray) -> None:
    if count := int(np.isnan(logits).any(axis=1).sum()):
        raise TrainingError(f"the network predicts NaN for {count:,} of {len(logits):,} images", "Train again with a lower --lr, or with --amp off")


def list_groups(rows: Sequence[Row]) -> list[str]:
    """Return the group of each image; an image without one is a group of its own. Empty if there is one group, or none with several images."""
    groups = [f"group {row.group}" if row.group else f"image {row.path}" for row in rows]
    return groups if 1 < len(set(groups)) < len(groups) else []


def are_enough(groups: Sequence[str]) -> bool:
    """Return whether there are enough groups for an interval over groups."""
    return len(set(groups)) >= bootstrap.MIN_GROUPS


def _weighted_score(labels: np.ndarray, predicted: np.ndarray) -> ClassScore:
    precision, recall, f1, _ = skm.precision_recall_fscore_support(labels, predicted, average="weighted", zero_division=0)
    return ClassScore("weighted", float(precision), float(recall), float(f1), len(labels))


def _ranking_metrics(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Return ROC AUC and average precision, each class against the rest, averaged over the classes with positive and negative images."""
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    usable = np.flatnonzero((counts > 0) & (counts < len(labels)))
    if not len(usable):
        return None, None
    areas = [skm.roc_auc_score(labels == i, probabilities[:, i]) for i in usable]
    precisions = [skm.average_precision_score(labels == i, probabilities[:, i]) for i in usable]
    return float(np.mean(areas)), float(np.mean(precisions))


def _count_top(probabilities: np.ndarray, labels: np.ndarray, k: int) -> int:
    """Return the number of images whose true class is among the `k` most probable ones."""
    blocks, indices = calibration.list_blocks(*probabilities.shape), list(range(probabilities.shape[1]))
    return sum(int(skm.top_k_accuracy_score(labels[block], probabilities[block], k=k, normalize=False, labels=indices)) for block in blocks)


def _bootstrap_intervals(confusion: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    values = {"log_loss": calibration.cross_entropy(probabilities, labels), "brier": calibration.squared_errors(probabilities, labels)}
    means = {name: bootstrap.mean_interval(of_images, labels, seed) for name, of_images in values.items()}
    return {**bootstrap.bootstrap_intervals(confusion, seed), **{name: (low, high) for name, (low, high) in means.items() if low < high}}
