"""Smaller and faster forms of `model.onnx`: 8-bit integers by ONNX Runtime's static quantisation, 16-bit floats by its converter."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import HistogramCalibrater
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from ..inference.onnx_model import INPUT
from .onnx import OURS

# Measured on seedlings (mobilenetv2_100, 0.809 in float32): ranges from least to greatest 0.753, from percentiles 0.785, with the first
# fifth of the convolutions left in float32 too 0.807; those are few weights, and what they give spreads widest.
PERCENTILE, LEFT_ALONE = 99.99, 0.2
AT_ONCE = 16  # images that the calibrator looks at together
QUANTISED = ["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool"]


class Calibration(CalibrationDataReader):
    """Gives images, each uint8 `[h, w, 3]`, one at a time: they may be of any sizes."""

    def __init__(self, pixels: Iterator[np.ndarray]) -> None:
        self.pixels = pixels

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.pixels, None)
        return None if image is None else {INPUT: image[None]}


def quantize_int8(source: Path, target: Path, pixels: Iterator[np.ndarray]) -> None:
    """Write a network whose weights and activations are 8-bit integers, their ranges taken from images (weights: channel by channel)."""
    with tempfile.TemporaryDirectory() as scratch, _silence(), _calibrate_in_parts():
        ready = Path(scratch) / "ready.onnx"
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)  # BatchNorm goes into the convolutions
        quantize_static(
            str(ready),
            str(target),
            Calibration(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
            nodes_to_exclude=[*_preparation_nodes(ready), *_first_convolutions(ready)],
        )
    _copy_metadata(source, target)


@contextmanager
def _calibrate_in_parts() -> Iterator[None]:
    """Let the calibrator look at a few images at a time: it keeps what every layer gave for all it was shown, 6 GB for 256 of 128 px.

    It adds each part to its histograms; there is no option for it (`CalibMaxIntermediateOutputs` is heard by another calibrator only).
    """
    whole = HistogramCalibrater.collect_data

    def collect(self: HistogramCalibrater, reader: Calibration) -> None:
        while part := list(islice(iter(reader.get_next, None), AT_ONCE)):
            whole(self, Calibration(each[INPUT][0] for each in part))

    HistogramCalibrater.collect_data = collect
    try:
        yield
    finally:
        HistogramCalibrater.collect_data = whole


def convert_fp16(source: Path, target: Path) -> None:
    """Write a network that computes in 16-bit floats; what goes in and comes out stays as it is."""
    with _silence():
        graph = convert_float_to_float16(onnx.load(source), keep_io_types=True, node_block_list=_preparation_nodes(source))
    onnx.save(graph, target)
    _copy_metadata(source, target)


def _preparation_nodes(path: Path) -> list[str]:
    """Return the names of the nodes before and after the network: pixels and probabilities stay exact."""
    return [node.name for node in onnx.load(path, load_external_data=False).graph.node if node.name.startswith(OURS)]


def _first_convolutions(path: Path) -> list[str]:
    names = [node.name for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "Conv"]
    return names[: round(LEFT_ALONE * len(names))]


def _copy_metadata(source: Path, target: Path) -> None:
    graph = onnx.load(target)
    onnx.helper.set_model_props(graph, {entry.key: entry.value for entry in onnx.load(source).metadata_props})
    onnx.save(graph, target)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantiser's advice to preprocess, which was followed, off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with redirect_stdout(io.StringIO()):
                yield
        finally:
            logging.disable(logging.NOTSET)
