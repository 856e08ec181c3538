"""Results of an evaluation: predictions, metrics with intervals, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..data import Row

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class, or their average over the classes.

    Attributes:
        name: the class; "macro" or "weighted" for an average.
        precision: share of the predictions of this class that are correct; 0 without predictions.
        recall: share of the images of this class that are predicted correctly.
        f1: harmonic mean of precision and recall.
        support: number of images of this class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Predictions:
    """Predictions of a network for the images of one split.

    Attributes:
        rows: the n images, in the order of the arrays.
        classes: the c class names, in the order of the class indices.
        log_probabilities: `[n, c]`, before temperature scaling.
        labels: class indices of the labels `[n]`.
    """

    rows: Sequence[Row]
    classes: Sequence[str]
    log_probabilities: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram. The confidence of an image is the probability of its predicted class.

    Attributes:
        low: lower edge of the bin, excluded.
        high: upper edge of the bin, included.
        images: number of images with a confidence in the bin.
        confidence: mean confidence of these images.
        accuracy: share of these images that are predicted correctly.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Coverage:
    """One point of the curve of selective accuracy against coverage.

    Attributes:
        threshold: lowest confidence at which a prediction is accepted.
        coverage: share of the images with an accepted prediction.
        accuracy: share of the accepted predictions that are correct.
    """

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of the probabilities, before and after temperature scaling.

    On the valid split the probabilities of an image come from a temperature that was fitted without this image.

    Attributes:
        temperature: temperature of the exported model, fitted on the whole valid split; 1 if calibration does not improve held-out images.
        error: expected calibration error in 15 bins.
        error_before: the same at temperature 1.
        log_loss_before: log loss at temperature 1.
        brier_before: Brier score at temperature 1.
        bins: reliability diagram, without empty bins.
        curve: points of selective accuracy against coverage, highest threshold first.
        thresholds: target accuracy, such as "0.95" -> the point of largest coverage that reaches it; targets without a useful point are left out.
        rejected: the fitted temperature, if calibration does not improve held-out images.
    """

    temperature: float
    error: float
    error_before: float
    log_loss_before: float
    brier_before: float
    bins: list[ReliabilityBin]
    curve: list[Coverage]
    thresholds: dict[str, Coverage]
    rejected: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Agreement of predictions with labels on one split. Titles of the figures: `core.metrics.FIGURE_TITLES`.

    Attributes:
        split: train, valid or test.
        classes: the c class names, in the order of `confusion` and `per_class`.
        accuracy: share of correct predictions.
        balanced_accuracy: mean recall of the classes that occur among the labels.
        log_loss: mean of minus the log of the probability of the true class.
        macro: mean of the class scores.
        weighted: mean of the class scores, weighted by support.
        per_class: scores of each class.
        confusion: `confusion[i][j]` counts the images of class i with predicted class j.
        top: k -> share of the images whose true class is among the k most probable ones; only for k < c.
        kappa: Cohen's kappa.
        mcc: Matthews correlation coefficient.
        roc_auc: mean area under the ROC curves of each class against the rest, over the classes with positive and negative images; None without any.
        average_precision: mean average precision of the same classes; None without any.
        brier: Brier score over all classes, from 0 to 2.
        intervals: name of a figure -> its bootstrap 95 % interval over images.
        calibration: calibration of the probabilities.
        others: metrics of `core.metrics.METRICS` without a field here, by name.
        groups: number of groups of the images; 0 if they have none.
        group_intervals: name of a metric -> its bootstrap 95 % interval over groups; empty with fewer than ten groups.
    """

    split: str
    classes: list[str]
    accuracy: float
    balanced_accuracy: float
    log_loss: float
    macro: ClassScore
    weighted: ClassScore
    per_class: list[ClassScore]
    confusion: list[list[int]]
    top: dict[str, float]
    kappa: float
    mcc: float
    roc_auc: float | None
    average_precision: float | None
    brier: float
    intervals: dict[str, tuple[float, float]]
    calibration: Calibration
    others: dict[str, float] = field(default_factory=dict)
    groups: int = 0
    group_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def figure(self, name: str) -> float | None:
        """Return a figure by its name in `core.metrics.FIGURE_TITLES`."""
        if name in self.others:
            return self.others[name]
        value: float | None = getattr(self.macro, name.removeprefix("macro_"), None) if name.startswith("macro_") else getattr(self, name)
        return value

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types, the metrics of `others` on the level of the fields."""
        values = asdict(self.without_confusion())
        others = values.pop("others")
        return {**values, "confusion": self.confusion, **others}

    def without_confusion(self) -> Evaluation:
        """Return a copy with an empty confusion matrix. With 1000 classes `dataclasses.asdict` takes seconds to copy the matrix."""
        return replace(self, confusion=[])


# Names of the metrics with a field in an evaluation; `Evaluation.others` holds the rest.
FIELD_METRICS = frozenset({f.name for f in fields(Evaluation)} | {f"macro_{f.name}" for f in fields(ClassScore)})


@dataclass(frozen=True)
class TopLoss:
    """An image with a large loss, and its prediction.

    Attributes:
        path: path of the image.
        actual: class of the label.
        predicted: predicted class.
        probability: probability of the predicted class.
        probability_of_actual: probability of the class of the label.
        loss: loss of the image.
    """

    path: str
    actual: str
    predicted: str
    probability: float
    probability_of_actual: float
    loss: float


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that the network confuses.

    Attributes:
        actual: class of the images.
        predicted: class that they are mistaken for.
        count: number of such images.
        share: their share of the images of class `actual`.
    """

    actual: str
    predicted: str
    count: int
    share: float
