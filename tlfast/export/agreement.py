"""Comparison of an exported file with its network: the probabilities of both for the same image files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core import ExportError, ImageError, OnEvent, Progress
from ..data import Preprocessing, images
from .types import Agreement

BATCH = 8  # images per forward pass of the comparison; with 32 it takes more memory than all else in a partial training
BATCH_BYTES = 64 << 20  # of decoded images, at which a batch ends
MIN_AGREEMENT = 0.995  # share of images with equal labels, ties not counted
TIE = 1e-3  # difference of the two largest probabilities below which rounding may decide

Pair = tuple[str, np.ndarray, np.ndarray]  # image file, probabilities of the network [c], probabilities of the exported file [c]
# Images, uint8 [h, w, 3], and the same images prepared, uint8 [b, size, size, 3] -> their probabilities [c]
PredictBatch = Callable[[Sequence[np.ndarray], np.ndarray], Iterable[np.ndarray]]


class ResizedInput(nn.Module):
    """A network with normalization, temperature and softmax: resized RGB images, uint8 `[b, size, size, 3]` -> probabilities, float32 `[b, c]`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        batch = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        probabilities: torch.Tensor = (self.model(batch) / self.temperature).softmax(dim=1)
        return probabilities


def compare_with_network(
    file: str, predict: PredictBatch, network: ResizedInput, preprocessing: Preprocessing, sources: Sequence[str], on_event: OnEvent
) -> list[Pair]:
    """Return the probabilities of a network and of an exported file, which `predict` runs, for each image file that can be read.

    Raises ExportError if none can be read.
    """
    pairs: list[Pair] = []
    done = 0
    for batch, opened in _open_batches(sources, preprocessing):
        if opened:
            prepared = np.stack([small for _, small in opened.values()])
            with torch.inference_mode():
                expected = network(torch.from_numpy(prepared)).numpy()  # [b, c]
            pairs += zip(opened, expected, predict([pixels for pixels, _ in opened.values()], prepared), strict=True)
        done += batch
        on_event(Progress(f"checking {file}", done, len(sources)))
    if not pairs:
        message = f"none of {len(sources)} images for the check of {file} can be read, the first: {sources[0]}"
        raise ExportError(message, "Restore the images, and try again")
    return pairs


def _open_batches(sources: Sequence[str], preprocessing: Preprocessing) -> Iterator[tuple[int, dict[str, tuple[np.ndarray, np.ndarray]]]]:
    """Yield the number of sources of each batch, and the pixels and the prepared image of those that can be read.

    Files may have been damaged or removed since they were decoded for training. A batch ends at BATCH sources or at BATCH_BYTES of pixels.
    """
    opened: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    start = 0
    for stop, source in enumerate(sources, start=1):
        with suppress(ImageError):
            opened[source] = _open(source, preprocessing)
        if stop - start == BATCH or stop == len(sources) or sum(pixels.nbytes for pixels, _ in opened.values()) >= BATCH_BYTES:
            yield stop - start, opened
            opened.clear()  # the caller still has it
            start = stop


def _open(source: str, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    image = images.open_image(source)
    return np.asarray(image), images.prepare(image, preprocessing.size, preprocessing.full_size, preprocessing.resize)


def judge_agreement(file: str, pairs: Sequence[Pair], hint: str) -> Agreement:
    """Summarize the comparison of a file with its network. Raises ExportError if too many labels differ."""
    difference = float(np.max([np.abs(expected - actual).max() for _, expected, actual in pairs]))  # NaN if any value is
    disagreements: list[dict[str, Any]] = []
    for source, expected, actual in pairs:
        if expected.argmax() != actual.argmax():
            second, first = np.sort(expected)[-2:]
            disagreements.append({"path": source, "margin": float(first - second)})
    wrong = sum(disagreement["margin"] > TIE for disagreement in disagreements)
    if wrong > (1 - MIN_AGREEMENT) * len(pairs) or not np.isfinite(difference):
        problem = f"disagrees with the network on {len(disagreements)} of {len(pairs)} images (probabilities differ by up to {difference:.2g})"
        raise ExportError(f"{file} {problem}", hint)
    return Agreement(len(pairs), 1 - len(disagreements) / len(pairs), difference, disagreements)
