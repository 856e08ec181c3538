"""Classification metrics, declared once: name, title, function and direction.

The table of epochs, `--metric`, evaluations, reports and the documentation follow from `METRICS`. To add a metric, add it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Counts:
    """Counts of the images of each class: what metrics need of confusion matrices, whose cells need much memory with many classes.

    Attributes:
        actual: number of images of each class `[..., c]`.
        predicted: number of predictions of each class `[..., c]`.
        correct: number of correct predictions of each class `[..., c]`.
    """

    actual: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray

    @classmethod
    def of_confusion(cls, confusion: np.ndarray) -> Counts:
        """Return the counts of confusion matrices `[..., c, c]`: rows are actual classes, columns predicted classes."""
        return cls(_sum(confusion), _sum(confusion, axis=-2), confusion.diagonal(axis1=-2, axis2=-1))

    @classmethod
    def of_classes(cls, labels: np.ndarray, predicted: np.ndarray, classes: int) -> Counts:
        """Return the counts of actual class indices `[n]` and of one or more predictions `[s, n]` of them, each `[s, c]`."""
        import numpy as np  # imported here, so that the command line starts without NumPy

        kinds = [(labels, row, labels[labels == row]) for row in predicted]
        return cls(*(np.stack([np.bincount(indices, minlength=classes) for indices in kind]) for kind in zip(*kinds, strict=True)))

    @cached_property
    def total(self) -> np.ndarray:
        """Number of images `[...]`."""
        return _sum(self.actual)

    @cached_property
    def hits(self) -> np.ndarray:
        """Number of correct predictions `[...]`."""
        return _sum(self.correct)

    @cached_property
    def chance(self) -> np.ndarray:
        """Expected number of correct predictions by chance, times the number of images `[...]`."""
        return _sum(self.actual * self.predicted)

    def macro(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `[..., c]` over the classes with labels or predictions `[...]`."""
        return safe_divide(values.sum(axis=-1), (self.actual + self.predicted > 0).sum(axis=-1))


def _sum(values: np.ndarray, axis: int = -1) -> np.ndarray:
    total: np.ndarray = values.sum(axis=axis)
    return total


def safe_divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide elementwise; 0 where the divisor is 0."""
    import numpy as np  # imported here, so that the command line starts without NumPy

    part, whole = np.asarray(part, float), np.asarray(whole, float)
    quotient: np.ndarray = np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole != 0)
    return quotient


def accuracy(counts: Counts) -> np.ndarray:
    """Fraction of correct predictions `[...]`."""
    return safe_divide(counts.hits, counts.total)


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall of the classes with labels `[...]`."""
    return safe_divide(safe_divide(counts.correct, counts.actual).sum(axis=-1), (counts.actual > 0).sum(axis=-1))


def macro_precision(counts: Counts) -> np.ndarray:
    """Mean precision of the classes `[...]`. A class without predictions has precision 0."""
    return counts.macro(safe_divide(counts.correct, counts.predicted))


def macro_recall(counts: Counts) -> np.ndarray:
    """Mean recall of the classes with labels or predictions `[...]`."""
    return counts.macro(safe_divide(counts.correct, counts.actual))


def macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 of the classes `[...]`."""
    return counts.macro(safe_divide(2 * counts.correct, counts.actual + counts.predicted))


def cohen_kappa(counts: Counts) -> np.ndarray:
    """Cohen's kappa `[...]`: agreement beyond chance (Cohen 1960, doi 10.1177/001316446002000104)."""
    return safe_divide(counts.total * counts.hits - counts.chance, counts.total**2 - counts.chance)


def matthews_correlation(counts: Counts) -> np.ndarray:
    """Matthews correlation for several classes `[...]`: R_K (Gorodkin 2004, doi 10.1016/j.compbiolchem.2004.09.006)."""
    labels, predictions = (counts.total**2 - (counts.actual**2).sum(axis=-1)), (counts.total**2 - (counts.predicted**2).sum(axis=-1)).astype(float)
    return safe_divide(counts.total * counts.hits - counts.chance, (labels * predictions) ** 0.5)


@dataclass(frozen=True)
class Metric:
    """One metric of predicted classes.

    `function` maps counts `[..., c]` to values `[...]`. Metrics with `each_epoch` are columns of the table of epochs
    and choices of `--metric`; metrics with `headline` are shown at the top of the report.
    """

    name: str
    title: str
    function: Callable[[Counts], np.ndarray]
    higher_is_better: bool = True
    each_epoch: bool = False
    headline: bool = True


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", accuracy, each_epoch=True),
        Metric("balanced_accuracy", "balanced accuracy", balanced_accuracy, each_epoch=True),
        Metric("macro_precision", "macro precision", macro_precision, headline=False),
        Metric("macro_recall", "macro recall", macro_recall, headline=False),
        Metric("macro_f1", "macro F1", macro_f1, each_epoch=True),
        Metric("kappa", "Cohen's kappa", cohen_kappa),
        Metric("mcc", "Matthews correlation", matthews_correlation),
    )
}
EPOCH_METRICS = tuple(name for name in dict.fromkeys(("accuracy", "macro_f1", *METRICS)) if METRICS[name].each_epoch)
VALID_LOSS = "valid_loss"
CHOICES = (*EPOCH_METRICS, VALID_LOSS)  # of --metric

# Metrics of predicted probabilities, computed in evaluation/evaluator.py.
PROBABILITY_FIGURES = {"log_loss": "log loss", "brier": "Brier score", "roc_auc": "ROC AUC", "average_precision": "average precision"}
FIGURE_TITLES = {**{name: metric.title for name, metric in METRICS.items()}, **PROBABILITY_FIGURES}
HEADLINES = tuple(name for name in FIGURE_TITLES if name in PROBABILITY_FIGURES or METRICS[name].headline)


def compute_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return all metrics of confusion matrices `[..., c, c]` by name, each `[...]`."""
    return apply_metrics(Counts.of_confusion(confusion))


def apply_metrics(counts: Counts) -> dict[str, np.ndarray]:
    """Return all metrics of counts by name, each `[...]`."""
    return {name: metric.function(counts) for name, metric in METRICS.items()}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix `[c, c]` of actual and predicted class indices `[n]`."""
    import numpy as np

    return np.bincount(np.asarray(labels) * classes + np.asarray(predicted), minlength=classes**2).reshape(classes, classes)


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `metrics.json` with the averages over the classes as figures too: macro_precision, macro_recall and macro_f1."""
    return {**metrics, **{f"macro_{name}": metrics["macro"][name] for name in ("precision", "recall", "f1")}}


def format_threshold(threshold: float) -> str:
    """Return a threshold of the probability with four decimals, six close to 1. It is rounded up, so that no further prediction is accepted.

    >>> format_threshold(0.98412), format_threshold(0.999951)
    ('0.9842', '0.999951')
    """
    decimals = 4 if threshold <= 0.9999 else 6
    return f"{math.ceil(round(threshold * 10**decimals, 3)) / 10**decimals:.{decimals}f}"
