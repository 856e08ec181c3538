"""From one pass over the images to every figure: predictions, then metrics."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn import metrics as skm

from ..core.metrics import compute_metrics
from . import bootstrap, calibration
from .types import ClassScore, ConfusedPair, Evaluation, Predictions

OWN_FIELDS = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "kappa", "mcc")  # of an Evaluation, by scikit-learn
TOP = (3, 5)  # the truth among so many likeliest classes, where there are more


def evaluate(predictions: Predictions, split: str, temperature: float | None = None, seed: int = 0) -> Evaluation:
    """Judge predictions, by scikit-learn where it has the figure.

    Where no `temperature` is given, each image's probabilities come from one fitted without it, so that what is said of them holds for new
    images. Averages are over the classes that occur among labels or predictions; a class without predictions has precision 0.
    """
    said, labels, classes = predictions.log_probabilities, predictions.labels, predictions.classes
    before, fitted = calibration.apply_temperature(said, 1.0), temperature or calibration.fit_temperature(said, labels)
    probabilities = calibration.apply_temperature(said, fitted) if temperature else calibration.cross_validate_temperature(said, labels, seed)
    predicted, indices = said.argmax(axis=1), list(range(len(classes)))
    by_class = skm.precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    confusion = skm.confusion_matrix(labels, predicted, labels=indices)
    roc_auc, average_precision = _ranking_metrics(probabilities, labels)
    return Evaluation(
        split=split,
        classes=list(classes),
        accuracy=float(skm.accuracy_score(labels, predicted)),
        balanced_accuracy=float(by_class[1][by_class[3] > 0].mean()),
        log_loss=calibration.log_loss(probabilities, labels),
        macro=_average_score(labels, predicted, "macro"),
        weighted=_average_score(labels, predicted, "weighted"),
        per_class=[ClassScore(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in zip(classes, *by_class, strict=True)],
        confusion=confusion.tolist(),
        top={str(k): float(skm.top_k_accuracy_score(labels, probabilities, k=k, labels=indices)) for k in TOP if k < len(classes)},
        **_agreement_scores(labels, predicted, indices),
        roc_auc=roc_auc,
        average_precision=average_precision,
        brier=calibration.brier_score(probabilities, labels),
        intervals=_bootstrap_intervals(confusion, probabilities, labels, seed),
        calibration=calibration.measure_calibration(probabilities, before, labels, fitted),
        others={name: float(value) for name, value in compute_metrics(confusion).items() if name not in OWN_FIELDS},
    )


def most_confused(evaluation: Evaluation, least: int = 1) -> list[ConfusedPair]:
    """Return the off-diagonal cells of the confusion matrix, most frequent first."""
    matrix = np.array(evaluation.confusion)
    support = matrix.sum(axis=1)
    pairs = [
        ConfusedPair(evaluation.classes[i], evaluation.classes[j], int(matrix[i, j]), float(matrix[i, j] / support[i]))
        for i, j in zip(*np.where(matrix >= least), strict=True)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))


def _average_score(labels: np.ndarray, predicted: np.ndarray, kind: str) -> ClassScore:
    precision, recall, f1, _ = skm.precision_recall_fscore_support(labels, predicted, average=kind, zero_division=0)
    return ClassScore(kind, float(precision), float(recall), float(f1), len(labels))


def _ranking_metrics(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Return ROC-AUC and average precision, each class against the rest, averaged over the classes that some images have and some have not."""
    judged = [i for i in range(probabilities.shape[1]) if 0 < (labels == i).sum() < len(labels)]
    if not judged:
        return None, None
    areas = [skm.roc_auc_score(labels == i, probabilities[:, i]) for i in judged]
    precisions = [skm.average_precision_score(labels == i, probabilities[:, i]) for i in judged]
    return float(np.mean(areas)), float(np.mean(precisions))


def _bootstrap_intervals(confusion: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, tuple[float, float]]:
    means = {"log_loss": calibration.cross_entropy(probabilities, labels), "brier": calibration.squared_errors(probabilities, labels)}
    return {**bootstrap.bootstrap_intervals(confusion, seed), **{name: bootstrap.mean_interval(values, labels, seed) for name, values in means.items()}}


def _agreement_scores(labels: np.ndarray, predicted: np.ndarray, indices: np.ndarray) -> dict[str, float]:
    """Return kappa and Matthews correlation; 0 where labels and predictions are all of one class, of which scikit-learn warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa, mcc = skm.cohen_kappa_score(labels, predicted, labels=indices), skm.matthews_corrcoef(labels, predicted)
    return {"kappa": float(kappa) if np.isfinite(kappa) else 0.0, "mcc": float(mcc)}
