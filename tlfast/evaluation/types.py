"""Results of an evaluation: metrics with intervals, calibration and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..data.types import Row

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class (or an average), and how many images it had."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Predictions:
    """What a network said of images of one part: log probabilities `[n, c]` before any temperature, and class indices `[n]` of the labels."""

    rows: Sequence[Row]
    classes: Sequence[str]
    log_probabilities: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose likeliest class has a probability above `low` and up to `high`: how many, its mean, and the share that is right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Coverage:
    """Answering only where the likeliest class reaches `threshold`: the share of images answered, and the share of those that is right."""

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed, and what they were before temperature scaling.

    On the valid part each image's probabilities come from a temperature fitted without it; `temperature` is that fitted on all, which the
    run's exports use. `error` is the expected calibration error in 15 bins. `promises` gives, for an accuracy, the threshold from which on
    answers are right so often on these images.
    """

    temperature: float
    error: float
    error_before: float
    log_loss_before: float
    brier_before: float
    bins: list[ReliabilityBin]
    curve: list[Coverage]
    promises: dict[str, Coverage]


@dataclass(frozen=True)
class Evaluation:
    """How well predictions agree with labels on one part of the data.

    `confusion[i][j]` counts images of class i that were called class j. `top` is the share of images whose class is among the k likeliest.
    `roc_auc` and `average_precision` are macro averages of each class against the rest, over the classes that have both (None: none has).
    `intervals` gives bootstrap 95 % intervals by figure.
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
    others: dict[str, float] = field(default_factory=dict)  # metrics of `core.metrics.METRICS` that have no field here

    def figure(self, name: str) -> float | None:
        """Return a metric or figure by its name in `core.metrics.FIGURE_TITLES`."""
        if name.startswith("macro_"):
            return getattr(self.macro, name.removeprefix("macro_"), self.others.get(name))
        return self.others[name] if name in self.others else getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types; the metrics of `others` stand beside the fields."""
        values = asdict(self)
        others = values.pop("others")
        return {**values, **others}


@dataclass(frozen=True)
class ConfusedPair:
    """How often one class was taken for another, and what share of that class it is."""

    actual: str
    predicted: str
    count: int
    share: float
