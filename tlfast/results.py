"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .data.types import Row

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Choice:
    """What training to some depth would take: `depth` as typed, what trains, images a second, gigabytes kept, views, epochs, seconds in all.

    No epochs: it does not fit into the time, the seconds are those of the fewest epochs that it would be taken with.
    """

    depth: str
    trains: str
    images_per_second: float
    gigabytes: float
    views: int
    epochs: int
    seconds: float
    chosen: bool = False


@dataclass(frozen=True)
class EpochRow:
    """One epoch: mean losses, metrics on the valid part, and its duration in seconds."""

    phase: str
    epoch: int
    train_loss: float
    valid_loss: float
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    seconds: float


@dataclass(frozen=True)
class RateCurve:
    """What the learning-rate finder saw: the loss at each rate, and the rate it suggests; and the seconds that a step took, an image."""

    rates: list[float]
    losses: list[float]
    suggestion: float
    step: float = field(default=0.0, compare=False)  # the machine's matter: two curves may be equal without it


@dataclass(frozen=True)
class Pass:
    """Passes of a network over images, without training it: how many it was run on, how long that took, how many were kept from before.

    `kept_seconds` is what those took when they were made.
    """

    images: int
    seconds: float
    kept: int = 0
    kept_seconds: float = 0.0


@dataclass(frozen=True)
class Phase:
    """One phase of a training: its rates, its epochs, and the epoch that was kept.

    `lr` is the top of the schedule for the highest group of parameters, `lowest_lr` for the lowest. `images_per_second` counts what was
    trained on: images, or the stored features of images that the pass `features` made.
    """

    name: str
    lr: float
    lowest_lr: float
    epochs: list[EpochRow]
    best_epoch: int
    seconds: float
    images_per_second: float
    curve: RateCurve | None = None
    features: Pass | None = None
    precision: str = "off"  # autocast: off, bf16 or fp16


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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ConfusedPair:
    """How often one class was taken for another, and what share of that class it is."""

    actual: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Agreement:
    """How an exported file answers beside the network it was made from, each from image files to probabilities.

    `top1` is the share of images whose likeliest class is the same, `largest_difference` that of any probability; `disagreements` names
    each image with another class, and by how much the network preferred its own.
    """

    images: int
    top1: float
    largest_difference: float
    disagreements: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the likeliest class, its probability (0 to 1), and every class's, likeliest first."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class PredictRow:
    """One image of a `predict` command: its prediction, or why there is none."""

    path: str
    prediction: Prediction | None
    error: str = ""


@dataclass(frozen=True)
class Export:
    """A file made of a run's network: how large it is, how good and how fast, beside `model.onnx` in the same process on the same images."""

    file: str
    megabytes: float
    share_of_size: float
    images: int
    accuracy: float
    accuracy_before: float
    images_per_second: float  # of the network alone, from pixels in memory
    images_per_second_before: float


@dataclass(frozen=True)
class Tally:
    """What many predictions come to: images for each label ("unsure" among them), and how many could not be read."""

    labels: dict[str, int]
    failed: int
