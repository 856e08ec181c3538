"""Formats of smaller network files that `tlfast export` writes into a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Pixels = Iterator[np.ndarray]


@dataclass(frozen=True)
class Format:
    """A format of smaller ONNX files.

    `write(source, target, pixels)` writes the file `target` from the `model.onnx` at `source`. The new file must have the same input, output and
    metadata. `pixels` yields training images for calibration, uint8 `[h, w, 3]` each; they are decoded only when the writer asks for them.
    """

    name: str
    file: str
    write: Callable[[Path, Path, Pixels], None]


def _write_int8(source: Path, target: Path, pixels: Pixels) -> None:
    from .quantize import quantize_int8  # loads onnx and the quantizer, which takes a second

    quantize_int8(source, target, pixels)


def _write_fp16(source: Path, target: Path, pixels: Pixels) -> None:
    from .quantize import convert_fp16

    convert_fp16(source, target)


FORMATS = {each.name: each for each in (Format("int8", "model.int8.onnx", _write_int8), Format("fp16", "model.fp16.onnx", _write_fp16))}
