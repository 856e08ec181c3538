"""Predictions of an ONNX file for labelled images. Shared by the commands `export` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import DataError, OnEvent, Progress
from ..data import Row, images
from ..inference import Network, predict_stream

MIN_PROBABILITY = 1e-12  # whose logarithm is finite
RESTORE_HINT = "Restore the images, or correct their paths"


def predict_file(network: Network, rows: Sequence[Row], phase: str, on_event: OnEvent) -> tuple[list[Row], np.ndarray]:
    """Return the rows whose images can be read, and their log probabilities `[n, c]`. Raises DataError if there are none.

    `phase` is the text of the progress events.
    """
    readable, found = [], []
    for done, (row, probabilities) in enumerate(predict_stream(network, rows, read_pixels), start=1):
        if not isinstance(probabilities, str):
            readable.append(row)
            found.append(probabilities)
        on_event(Progress(phase, done, len(rows)))
    if not found:
        raise DataError(f"none of the {len(rows)} images can be read, the first: {rows[0].path}", RESTORE_HINT)
    return readable, np.log(np.maximum(found, MIN_PROBABILITY))


def read_pixels(row: Row) -> np.ndarray:
    """Return the pixels of an image, uint8 `[h, w, 3]`. Raises ImageError."""
    return np.asarray(images.open_image(row.path))
