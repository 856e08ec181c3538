"""Results of an export: agreement with the network, size and speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
