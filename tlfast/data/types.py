"""Types of the image table, of the data check and of the preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..core import ModelSettings, RunRecord

# Suffixes of packed files and of tables; a parquet file can be either.
PARQUET, TAR = ".parquet", ".tar"
TABLES = (".csv", ".tsv", PARQUET)


@dataclass(frozen=True)
class Row:
    """One image: path, label, split (train, valid, test, or "" if not assigned yet) and group ("" for none).

    `path` is that of a file, or `archive.zip!/member` for an image in a zip. All images of a group stay in one split.

    >>> Row("photos/cat/1.jpg", "cat", "train", group="2026-11-28").label
    'cat'
    """

    path: str
    label: str
    split: str = ""
    group: str = ""


def write_value(value: Any) -> str:
    """Return a label, split or group of any type as text; "" for none. The number 0 is a value.

    >>> write_value(0), write_value(None)
    ('0', '')
    """
    return "" if value is None else str(value).strip()


@dataclass(frozen=True)
class Unreadable:
    """A skipped image and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class DataSummary:
    """Number of images per split and class, skipped images, and notes on the data."""

    source: str
    classes: list[str]
    counts: dict[str, dict[str, int]]  # split -> class -> number of images
    groups: int  # number of distinct groups
    unreadable: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # "48x48" (width x height) -> number of images
    modes: dict[str, int] = field(default_factory=dict)  # Pillow mode -> number of images

    def total(self, split: str) -> int:
        """Return the number of images of a split."""
        return sum(self.counts.get(split, {}).values())

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)


# The kinds of findings, each with its explanation in reports: "The image ...".
FINDING_KINDS = {
    "unreadable": "cannot be opened; training skips it",
    "constant": "has the same colour in all pixels",
    "nearly constant": "has almost no contrast",
    "dark": "has almost no pixel brighter than a third of the range",
    "pale": "is almost completely white",
    "blurry": "has less than a fiftieth of the detail that is usual among these images",
    "conflict": "has an exact copy with another label",
    "near conflict": "is almost equal to an image with another label",
    "leak": "is a validation or test image with a copy in an earlier split: train, or valid for a test image",
    "near leak": "is a validation or test image, and almost equal to one of an earlier split: compressed, resized or brightened again",
    "straddling group": "is a validation or test image of a group with training images",
    "near in time": "is a validation or test image, taken within five seconds of a training image according to the file names",
    "duplicate": "is a copy of another image of the same split",
    "near duplicate": "is almost equal to another image of the same split",
    "label issue": "belongs to another class according to a network that was not trained on it",
    "outlier": "is unlike all other images",
}


RANKED = ("label issue", "outlier")  # kinds found by a network, the most important findings first


@dataclass(frozen=True)
class Finding:
    """A possible problem of an image. `kind` is a key of FINDING_KINDS, `other` the path of the related image ("" for none).

    `value` depends on the kind: the correlation with a near duplicate; the seconds between two images near in time; the standard deviation of a
    nearly constant image, or the percentile of a dark or pale one, in grey levels; the detail of a blurry image relative to the median; the
    probability of the label; for an outlier, the distance to its nearest neighbours relative to the usual one.
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


Stats = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, for pixel values in 0..1


@dataclass(frozen=True)
class Preprocessing:
    """The conversion of an image to network input `[3, size, size]`.

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

    @classmethod
    def of_run(cls, run: RunRecord) -> Preprocessing:
        """Return the preprocessing of a run."""
        return cls.from_settings(run.settings, (run.manifest["mean"], run.manifest["std"]))
