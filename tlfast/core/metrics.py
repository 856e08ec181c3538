"""The metrics of classification, declared once: name, title, function and direction.

The table of epochs, `--metric`, evaluations, reports and the README follow from `METRICS`. To add a metric, add it there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Counts:
    """Counts that follow from confusion matrices `[..., c, c]`, rows actual and columns predicted."""

    confusion: np.ndarray

    @cached_property
    def actual(self) -> np.ndarray:
        """Images of each class `[..., c]`."""
        return self.confusion.sum(axis=-1)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Predictions of each class `[..., c]`."""
        return self.confusion.sum(axis=-2)

    @cached_property
    def correct(self) -> np.ndarray:
        """Correct predictions of each class `[..., c]`."""
        return self.confusion.diagonal(axis1=-2, axis2=-1)

    @cached_property
    def total(self) -> np.ndarray:
        """All images `[...]`."""
        return self.actual.sum(axis=-1)

    @cached_property
    def hits(self) -> np.ndarray:
        """All correct predictions `[...]`."""
        return self.correct.sum(axis=-1)

    @cached_property
    def chance(self) -> np.ndarray:
        """Sum over the classes of images times predictions `[...]`: agreement by chance, times the number of images."""
        return (self.actual * self.predicted).sum(axis=-1)

    def macro(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of `[..., c]` over the classes that occur among labels or predictions."""
        return safe_divide(values.sum(axis=-1), (self.actual + self.predicted > 0).sum(axis=-1))


def safe_divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; 0 where the divisor is 0."""
    import numpy as np  # here, so that the command line starts without NumPy

    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(part.shape, whole.shape)), where=whole != 0)


def accuracy(counts: Counts) -> np.ndarray:
    """Share of correct predictions."""
    return safe_divide(counts.hits, counts.total)


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall of the classes that occur among the labels."""
    return safe_divide(safe_divide(counts.correct, counts.actual).sum(axis=-1), (counts.actual > 0).sum(axis=-1))


def macro_precision(counts: Counts) -> np.ndarray:
    """Mean precision of the classes; a class without predictions has precision 0."""
    return counts.macro(safe_divide(counts.correct, counts.predicted))


def macro_recall(counts: Counts) -> np.ndarray:
    """Mean recall of the classes."""
    return counts.macro(safe_divide(counts.correct, counts.actual))


def macro_f1(counts: Counts) -> np.ndarray:
    """Mean F1 of the classes."""
    return counts.macro(safe_divide(2 * counts.correct, counts.actual + counts.predicted))


def cohen_kappa(counts: Counts) -> np.ndarray:
    """Cohen's kappa: agreement beyond chance."""
    return safe_divide(counts.total * counts.hits - counts.chance, counts.total**2 - counts.chance)


def matthews_correlation(counts: Counts) -> np.ndarray:
    """Gorodkin's R_K, Matthews correlation for several classes (2004, doi 10.1016/j.compbiolchem.2004.09.006)."""
    labels, predictions = (counts.total**2 - (counts.actual**2).sum(axis=-1)), (counts.total**2 - (counts.predicted**2).sum(axis=-1)).astype(float)
    return safe_divide(counts.total * counts.hits - counts.chance, (labels * predictions) ** 0.5)


@dataclass(frozen=True)
class Metric:
    """One metric of hard predictions.

    `function` maps the counts of confusion matrices `[..., c, c]` to values `[...]`. Metrics with `each_epoch` stand in the table of epochs and can
    be chosen by `--metric`; those with `headline` stand at the top of the report.
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

# Figures of probabilities, which an evaluation computes by functions of its own.
PROBABILITY_FIGURES = {"log_loss": "log loss", "brier": "Brier score", "roc_auc": "ROC AUC", "average_precision": "average precision"}
FIGURE_TITLES = {**{name: metric.title for name, metric in METRICS.items()}, **PROBABILITY_FIGURES}
HEADLINES = tuple(name for name in FIGURE_TITLES if name in PROBABILITY_FIGURES or METRICS[name].headline)


def compute_metrics(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return every metric of confusion matrices `[..., c, c]` by name, each `[...]`."""
    counts = Counts(confusion)
    return {name: metric.function(counts) for name, metric in METRICS.items()}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix `[c, c]` of class indices `[n]`."""
    import numpy as np

    return np.bincount(np.asarray(labels) * classes + np.asarray(predicted), minlength=classes**2).reshape(classes, classes)
