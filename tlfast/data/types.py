"""Types of the image table and of the data check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..core.settings import ModelSettings


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


# What can be wrong with an image, and what that means.
FINDING_KINDS = {
    "unreadable": "cannot be opened; a training skips it",
    "constant": "has the same colour everywhere",
    "nearly constant": "shows next to nothing",
    "dark": "has hardly a pixel brighter than a third",
    "pale": "is white nearly everywhere",
    "conflict": "has a copy, equal to the pixel, under another label",
    "near conflict": "is nearly another image that has another label",
    "leak": "judges the network, and is in training too",
    "near leak": "judges the network, and is in training too: compressed, resized or brightened anew",
    "straddling group": "judges the network, and images of its group are in training",
    "duplicate": "is a copy of another in the same part",
    "near duplicate": "is nearly another in the same part",
    "label issue": "looks like another class to a network that has not seen it",
    "outlier": "is unlike all other images",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an image: its kind, one of KINDS, and the image that it is the copy of or disagrees with ("" for none).

    `value` is the correlation of two that are nearly alike, the spread in grey levels of one that shows next to nothing, the level that makes one
    dark or pale, the probability of a doubtful label, or how many times as far as usual an outlier is from the images nearest to it.
    """

    kind: str
    path: str
    label: str
    split: str
    other: str = ""
    other_label: str = ""
    other_split: str = ""
    value: float | None = None
    reason: str = ""


Stats = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, of values in 0..1


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes network input `[3, size, size]`.

    The image is resized to a square of `full_size` pixels by the policy `resize` (squish, crop or pad), cropped to `size`, scaled to 0..1, and
    normalized by `mean` and `std` of each channel.
    """

    size: int
    full_size: int
    resize: str
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def from_settings(cls, settings: ModelSettings, stats: Stats) -> Preprocessing:
        """Combine the sizes of the settings with the mean and standard deviation of the pretrained weights."""
        return cls(settings.size, settings.full_size, settings.resize, *stats)
