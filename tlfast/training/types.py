"""Records of a training: epochs, phases, feature passes, timings, plans of depths, speeds of a machine. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any

from ..core import Event, Settings
from ..core.metrics import EPOCH_METRICS

MIN_BATCH = 2  # BatchNorm cannot train on one image
LOGGED_EVERY = 50  # steps between events StepEnd; on a GPU reading the loss makes the host wait
EPOCH_VALUES = ("train_loss", "valid_loss", *EPOCH_METRICS)  # in the order of fastai's recorder


@dataclass(frozen=True)
class DepthPlan:
    """The predicted cost of training to one depth.

    `depth` is a value of `--depth`, `trains` names the trained layers, `images_per_second` is the speed of training steps, `gigabytes` the size of
    the cached features, `seconds` the predicted total. With `epochs` 0 the depth does not fit the time budget, and `seconds` is the
    prediction for the fewest epochs that would be accepted.
    """

    depth: str
    trains: str
    images_per_second: float
    gigabytes: float
    views: int
    epochs: int
    seconds: float
    chosen: bool = False


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class EpochRow:
        """One epoch: mean losses, every metric of `EPOCH_METRICS` on the valid split, and its duration in seconds."""

        phase: str
        epoch: int
        train_loss: float
        valid_loss: float
        accuracy: float
        macro_f1: float
        balanced_accuracy: float
        seconds: float
else:  # the fields follow the declared metrics; one that an earlier version did not compute is NaN
    _values = [(name, float, field(default=math.nan)) for name in (*EPOCH_VALUES, "seconds")]
    EpochRow = make_dataclass("EpochRow", [("phase", str), ("epoch", int), *_values], frozen=True)
    EpochRow.__module__ = __name__  # processes send each other rows


def restore_row(values: Mapping[str, Any]) -> EpochRow:
    """Return the row of a checkpoint, also of a version with other metrics."""
    known = {each.name for each in fields(EpochRow)}
    return EpochRow(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class RateCurve:
    """Result of the learning-rate finder.

    Attributes:
        rates: the learning rate of each step.
        losses: the smoothed loss at each rate.
        suggestion: the finder's rate, used with `--lr finder`.
        step: seconds per image of a training step.
        limit: highest rate of `--lr auto`, well below the rate at which the loss starts to climb.
        rate: the rate of the phase; in curves of earlier versions, which have none, the suggestion.
        source: where the rate comes from: "customary", "limited by the finder" or "finder".
    """

    rates: list[float]
    losses: list[float]
    suggestion: float
    step: float = field(default=0.0, compare=False)  # varies between repetitions
    limit: float = 0.0
    rate: float = 0.0
    source: str = "finder"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", self.rate or self.suggestion)


@dataclass(frozen=True)
class FeaturePass:
    """Cost of the forward passes of a frozen network.

    `images` counts the passes computed in this run, which took `seconds`; `kept` counts those read from the cache, which took `kept_seconds`
    when they were computed.
    """

    images: int
    seconds: float
    kept: int = 0
    kept_seconds: float = 0.0
    precision: str = "off"  # autocast: off, bf16 or fp16


@dataclass(frozen=True)
class Phase:
    """One finished phase of a training.

    `lr` is the highest rate of the one-cycle schedule for the head, `lowest_lr` that for the lowest group of parameters. `kept_epoch` is the
    epoch whose weights are kept, from 1; 0 if no epoch was as good as the phase before. `images_per_second` is the speed of training: of images, or of
    the cached features described by `features`.
    """

    name: str
    lr: float
    lowest_lr: float
    epochs: list[EpochRow]
    kept_epoch: int
    seconds: float
    images_per_second: float
    curve: RateCurve | None = None
    features: FeaturePass | None = None
    precision: str = "off"  # autocast: off, bf16 or fp16


@dataclass(frozen=True)
class StepEnd(Event):
    """A training step is complete; sent every LOGGED_EVERY steps.

    `step` counts the training steps of the phase from 1, `total` is their planned number. `loss` is fastai's running average, `rate` the learning
    rate of the head, `lowest_rate` that of the lowest layers, `images_per_second` the speed of training since the step or epoch before.
    """

    step: int
    total: int
    loss: float
    rate: float
    lowest_rate: float
    images_per_second: float


@dataclass(frozen=True)
class EpochEnd(Event):
    """An epoch is complete. `last` has the figures of its last step; its speed is that of the training of this epoch."""

    row: EpochRow
    last: StepEnd | None = None


@dataclass(frozen=True)
class DepthsPlanned(Event):
    """A depth was chosen: the plans of all depths, one of them with `chosen`."""

    plans: Sequence[DepthPlan]


@dataclass(frozen=True)
class Timing:
    """Measured costs of a depth, in seconds per image.

    `step` is a training step, `lower` a forward pass of the frozen part, `upper` one of the trained part. For each view, `uncached` counts the images
    that the frozen part must still run on, and `gigabytes` is the size of its cached output.
    """

    depth: str
    trains: str
    step: float
    lower: float
    upper: float
    uncached: Sequence[int]
    gigabytes: Sequence[float] = ()

    def plan(self, views: int, epochs: int, seconds: float) -> DepthPlan:
        """Return the plan of a training to this depth."""
        return DepthPlan(self.depth, self.trains, 1 / self.step, sum(self.gigabytes[:views]), views, epochs, seconds)


@dataclass(frozen=True)
class Timings:
    """Timings of all depths, from the head alone to all layers; `augment` is in seconds per image, `head` in seconds per feature of a training step.

    `teacher` is a forward pass of the teacher in seconds per image, and `uncached_teacher` counts for each view the images that it must still run on.
    """

    depths: Sequence[Timing]
    augment: float
    head: float
    teacher: float = 0.0
    uncached_teacher: Sequence[int] = ()


@dataclass(frozen=True)
class Work:
    """The amount of work: numbers of training and validation images, measured costs, and the seconds elapsed since the start."""

    train: int
    valid: int
    costs: Timings
    elapsed: float

    @property
    def whole(self) -> Timing:
        """The timing of all layers."""
        return self.costs.depths[-1]


# Speed of a machine


@dataclass(frozen=True)
class Measure:
    """Something that is measured.

    Attributes:
        title: name in tables.
        share: share of the time of all measures.
        on_device: whether it runs on the device of the training. Otherwise it runs on the processor.
        all_cores: whether it uses all cores of the processor.
    """

    title: str
    share: float
    on_device: bool
    all_cores: bool = True


MEASURES: Mapping[str, Measure] = {
    "decode_one": Measure("JPEG decoding, one thread", 0.12, False, all_cores=False),
    "decode_all": Measure("JPEG decoding, all cores", 0.12, False),
    "loader": Measure("training loader", 0.16, True),
    "forward": Measure("frozen layers", 0.2, True),
    "step": Measure("training step, all layers", 0.4, True),
}


@dataclass(frozen=True)
class Workload:
    """What the measures compute.

    Attributes:
        arch, size, bs: network (with random weights), side of its input in pixels, and images in a training batch.
        pictures: number of images that are drawn; a batch repeats them.
        drawn: (width, height) of the drawing. The JPEG file has twice the width and height, so that it has less detail than noise.
        seconds: time of all measures, without the preparation.
    """

    arch: str = "mobilenetv2_100"
    size: int = 96
    bs: int = 64
    pictures: int = 24
    drawn: tuple[int, int] = (256, 192)
    seconds: float = 30.0

    def settings(self) -> Settings:
        """Return the settings of a training with this network."""
        return Settings(task="speed", arch=self.arch, weights="none", size=self.size, bs=self.bs, store="ram")

    @property
    def jpeg(self) -> tuple[int, int]:
        """Width and height of the JPEG files."""
        return 2 * self.drawn[0], 2 * self.drawn[1]

    def __str__(self) -> str:
        width, height = self.jpeg
        return f"{self.arch} with random weights at {self.size} px, batches of {self.bs}; drawn JPEG images of {width}x{height}"


@dataclass(frozen=True)
class Speed:
    """A measured speed.

    Attributes:
        measure: a name of `MEASURES`.
        per_second: images per second, the median of the repetitions.
        repetitions: number of timed repetitions.
        precision: number format of a network, "float32", "bf16" or "fp16"; "" for measures without one.
        taken: number of cores that other programs used meanwhile, on average; None if it is unknown.
    """

    measure: str
    per_second: float
    repetitions: int
    precision: str = ""
    taken: float | None = None
