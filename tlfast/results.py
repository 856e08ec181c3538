"""What tlfast returns: frozen dataclasses, each of which can be written as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One image: where it lies, its label, its part (train, valid, test or "") and its group ("" for none).

    `path` is a file's path, or `archive.zip!/member` for an image inside a zip.
    """

    path: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Unreadable:
    """An image that was skipped, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Event:
    """What a long piece of work says while it runs: a step of `total`, a row for the table of epochs, or a remark."""

    phase: str
    done: int = 0
    total: int = 0
    row: EpochRow | None = None
    note: str = ""


OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Take an event and do nothing: the default listener."""


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
    """What the learning-rate finder saw: the loss at each rate, and the rate it suggests."""

    rates: list[float]
    losses: list[float]
    suggestion: float


@dataclass(frozen=True)
class Pass:
    """Passes of a network over images, without training it: how many it was run on, how long that took, how many were kept from before."""

    images: int
    seconds: float
    kept: int = 0


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
class Evaluation:
    """How well predictions agree with labels on one part of the data.

    `confusion[i][j]` counts images of class i that were called class j.
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
class DataSummary:
    """Images per class and part, and what was skipped or said about them."""

    source: str
    classes: list[str]
    counts: dict[str, dict[str, int]]  # part -> class -> images
    groups: int
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # "48x48" -> images
    modes: dict[str, int] = field(default_factory=dict)  # "RGB" -> images

    def total(self, split: str) -> int:
        return sum(self.counts.get(split, {}).values())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What a training would do: shown by `--dry-run`."""

    settings: dict[str, Any]
    data: DataSummary
    weights: str
    device: str
    parameters: int
    trained_parameters: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
class TrainResult:
    """A finished training: its folder, what it was and how good it is."""

    run: str
    folder: str
    settings: dict[str, Any]
    weights: str
    device: str
    phases: list[Phase]
    evaluation: Evaluation
    data: DataSummary
    seconds: float
    onnx: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class InterpretResult:
    """Where a classifier errs: per-class scores, the most confused pairs and the pictures drawn."""

    run: str
    evaluation: Evaluation
    confused: list[ConfusedPair]
    top_losses: list[dict[str, Any]]
    pictures: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
class ExportResult:
    """What `tlfast export` made: files in the run, and where a portable bundle lies ("" for none)."""

    run: str
    exports: list[Export]
    bundle: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Tally:
    """What many predictions come to: images for each label ("unsure" among them), and how many could not be read."""

    labels: dict[str, int]
    failed: int
