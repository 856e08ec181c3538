"""Smaller ONNX files: int8 by static quantization, fp16 by conversion, both with the tools of ONNX Runtime."""

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
from .onnx_preprocessing import NODE_PREFIX

# see docs/benchmarks.md, "Quantization"
PERCENTILE = 99.99  # of the absolute activations, as their range
FLOAT_SHARE = 0.2  # of the convolutions, the first ones, which stay in float32: they have few weights and the widest activations
CALIBRATION_BATCH = 16  # images
QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool"]


class ImageReader(CalibrationDataReader):
    """Calibration images of any sizes for ONNX Runtime, uint8 `[h, w, 3]` each, one per call."""

    def __init__(self, pixels: Iterator[np.ndarray]) -> None:
        self.pixels = pixels

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image as network input `[1, h, w, 3]`, or None at the end."""
        image = next(self.pixels, None)
        return None if image is None else {INPUT: image[None]}


def quantize_int8(source: Path, target: Path, pixels: Iterator[np.ndarray]) -> None:
    """Write a copy of `source` with int8 weights (per channel) and uint8 activations.

    Activation ranges come from calibration images `pixels`, uint8 `[h, w, 3]` each.
    """
    with tempfile.TemporaryDirectory() as scratch, _silence(), _calibrate_in_batches():
        fused = Path(scratch) / "fused.onnx"
        quant_pre_process(str(source), str(fused), skip_symbolic_shape=True)  # merges BatchNorm into convolutions
        quantize_static(
            str(fused),
            str(target),
            ImageReader(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED_OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
            nodes_to_exclude=[*_surrounding_nodes(fused), *_first_convolutions(fused)],
        )
    _copy_metadata(source, target)


@contextmanager
def _calibrate_in_batches() -> Iterator[None]:
    """Feed the calibrator of ONNX Runtime a few images at a time.

    It holds the output of every layer for all images of a call, which takes gigabytes; see docs/benchmarks.md, "Quantization". The
    histograms of several calls add up. The option `CalibMaxIntermediateOutputs` has no effect on this calibrator.
    """
    collect_data = HistogramCalibrater.collect_data

    def collect_in_batches(self: HistogramCalibrater, reader: ImageReader) -> None:
        while batch := list(islice(iter(reader.get_next, None), CALIBRATION_BATCH)):
            collect_data(self, ImageReader(inputs[INPUT][0] for inputs in batch))

    HistogramCalibrater.collect_data = collect_in_batches
    try:
        yield
    finally:
        HistogramCalibrater.collect_data = collect_data


def convert_fp16(source: Path, target: Path) -> None:
    """Write a copy of `source` that computes in float16. Types of input and output are unchanged."""
    with _silence():
        exported = convert_float_to_float16(onnx.load(source), keep_io_types=True, node_block_list=_surrounding_nodes(source))
    onnx.save(exported, target)
    _copy_metadata(source, target)


def _surrounding_nodes(path: Path) -> list[str]:
    """Return the names of the nodes before and after the network, which keep their precision."""
    return [node.name for node in onnx.load(path, load_external_data=False).graph.node if node.name.startswith(NODE_PREFIX)]


def _first_convolutions(path: Path) -> list[str]:
    names = [node.name for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "Conv"]
    return names[: round(FLOAT_SHARE * len(names))]


def _copy_metadata(source: Path, target: Path) -> None:
    exported = onnx.load(target)
    onnx.helper.set_model_props(exported, {entry.key: entry.value for entry in onnx.load(source).metadata_props})
    onnx.save(exported, target)


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings, logs and prints: the quantizer recommends preprocessing even after it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            with redirect_stdout(io.StringIO()):
                yield
        finally:
            logging.disable(logging.NOTSET)
