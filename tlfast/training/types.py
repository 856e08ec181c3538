"""Records of a training: epochs, phases, feature passes, plans of depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.events import Event


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
