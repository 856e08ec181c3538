"""Records of a training: epochs, phases, feature passes, plans of depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING

from ..core.events import Event
from ..core.metrics import EPOCH_METRICS


@dataclass(frozen=True)
class DepthPlan:
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
else:
    _measured = [(name, float) for name in ("train_loss", "valid_loss", *EPOCH_METRICS, "seconds")]
    EpochRow = make_dataclass("EpochRow", [("phase", str), ("epoch", int), *_measured], frozen=True)


@dataclass(frozen=True)
class RateCurve:
    """What the learning-rate finder saw: the loss at each rate, and the rate it suggests; and the seconds that a step took, an image."""

    rates: list[float]
    losses: list[float]
    suggestion: float
    step: float = field(default=0.0, compare=False)  # the machine's matter: two curves may be equal without it


@dataclass(frozen=True)
class FeaturePass:
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
    features: FeaturePass | None = None
    precision: str = "off"  # autocast: off, bf16 or fp16


@dataclass(frozen=True)
class EpochEnd(Event):
    """An epoch is complete: a row for the table of epochs."""

    row: EpochRow


@dataclass(frozen=True)
class DepthsPlanned(Event):
    """The depths that were considered, one of them chosen."""

    plans: Sequence[DepthPlan]


@dataclass(frozen=True)
class Timing:
    """Measured costs of a depth, in seconds per image.

    `step` is a training step, `lower` a forward pass of the frozen part, `upper` one of the trained part. For each view, `unmade` counts the images
    that the frozen part must still run on, and `gigabytes` is the size of its cached output.
    """

    depth: str
    trains: str
    step: float
    lower: float
    upper: float
    unmade: Sequence[int]
    gigabytes: Sequence[float] = ()

    def plan(self, views: int, epochs: int, seconds: float) -> DepthPlan:
        """Return the plan of a training to this depth."""
        return DepthPlan(self.depth, self.trains, 1 / self.step, sum(self.gigabytes[:views]), views, epochs, seconds)


@dataclass(frozen=True)
class Timings:
    """Timings of all depths, the classifier first and all layers last; `augment` is seconds per image, `head` seconds per feature of a training step."""

    depths: Sequence[Timing]
    augment: float
    head: float


@dataclass(frozen=True)
class Work:
    """The amount of work: training and validation images, their measured costs, and the seconds since the start."""

    train: int
    valid: int
    costs: Timings
    gone: float

    @property
    def whole(self) -> Timing:
        """The timing of all layers."""
        return self.costs.depths[-1]
