"""Results of an export: agreement with the network, size and speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Agreement:
    """Agreement of an exported file with its network, on the same image files.

    `top1` is the share of images with the same label, `largest_difference` the largest difference of a probability. `disagreements` lists
    each image with another label and its margin: the difference of the two largest probabilities of the network. `changed` is the number of images with
    another label than in the evaluation, which may compute in a shorter number format (`--amp`).
    """

    images: int
    top1: float
    largest_difference: float
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    changed: int = 0


@dataclass(frozen=True)
class PortableExport:
    """A file for another runtime, and its agreement with the network on images of the valid split.

    Attributes:
        format: name of the format.
        files: names of the files in the run, the main one first, the example program last.
        megabytes: size of the files.
        images: number of images.
        top1: share of the images with the same label.
        largest_difference: largest difference of a probability.
    """

    format: str
    files: list[str]
    megabytes: float
    images: int
    top1: float
    largest_difference: float


@dataclass(frozen=True)
class Export:
    """Size, accuracy and speed of a further ONNX file, and of `model.onnx` (`*_before`) in the same process on the same images.

    The log losses are those of probabilities whose temperature was fitted on other images. `temperature` is the divisor of the logits in the file.
    """

    file: str
    megabytes: float
    share_of_size: float
    images: int
    accuracy: float
    accuracy_before: float
    log_loss: float
    log_loss_before: float
    images_per_second: float  # of the network alone, with decoded images in memory
    images_per_second_before: float
    temperature: float
