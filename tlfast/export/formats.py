"""Further files of a network that `tlfast export` writes into a run: smaller ones, and those with test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..inference.onnx_model import TTA, name_file

Pixels = Iterator[np.ndarray]


@dataclass(frozen=True)
class Format:
    """A format of further ONNX files.

    `write(source, target, pixels)` writes the file `target` from the `model.onnx` at `source`. The new file must have the same input, output and
    metadata. `pixels` yields training images for calibration, uint8 `[h, w, 3]` each; they are decoded only when the writer asks for them.
    With `augments`, the file has to be more accurate instead of smaller, and gets a temperature of its own.
    """

    name: str
    file: str
    write: Callable[[Path, Path, Pixels], None]
    augments: bool = False


def _write_int8(source: Path, target: Path, pixels: Pixels) -> None:
    from .quantize import quantize_int8  # loads onnx and the quantizer, which takes a second

    quantize_int8(source, target, pixels)


def _write_fp16(source: Path, target: Path, pixels: Pixels) -> None:
    from .quantize import convert_fp16

    convert_fp16(source, target)


def _write_tta(source: Path, target: Path, pixels: Pixels, views: str) -> None:
    from .tta import write_views

    write_views(source, target, views)


FORMATS = {
    each.name: each
    for each in (
        Format("int8", "model.int8.onnx", _write_int8),
        Format("fp16", "model.fp16.onnx", _write_fp16),
        *(Format(f"tta-{views}", name_file(views), partial(_write_tta, views=views), augments=True) for views in TTA),
    )
}
