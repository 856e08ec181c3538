"""ONNX nodes that resize, crop and normalize images inside the exported graph, bit for bit as Pillow does.

ONNX's own antialiased Resize computes in float32 and rounds some pixels differently; see docs/benchmarks.md, "ONNX export".
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..data import Preprocessing
from ..inference.onnx_model import INPUT

NODE_PREFIX = "tlfast/"  # of the names of the nodes before and after the network
TEMPERATURE_NAME = "temperature"  # name of the constant that divides the logits
PRECISION = 22  # bits after the binary point of a weight, as in Pillow's Resample.c
BYTES = ("top", "middle", "bottom")  # of a 24-bit weight
SWAP_HEIGHT_AND_WIDTH = [0, 1, 3, 2]

Nodes = list[onnx.NodeProto]


def build_preprocessing(preprocessing: Preprocessing, output: str) -> tuple[Nodes, list[onnx.TensorProto]]:
    """Return nodes and constants that map uint8 RGB images `[b, h, w, 3]` to network input `output`, float32 `[b, 3, size, size]`.

    The tensor names in the comments are those of the graph; `full_size` is the size before the crop.
    """
    nodes = [
        make_node("Transpose", INPUT, "planes", perm=[0, 3, 1, 2]),  # [b, 3, h, w]
        *_build_squaring(preprocessing.resize),  # [b, 3, side, side], or [b, 3, h, w] with "squish"
        *_build_width_scaling("square", "narrowed", prefix="narrowed"),  # [b, 3, side, full_size]
        *_build_height_scaling("narrowed", "resized"),  # [b, 3, full_size, full_size]
        make_node("Slice", "resized crop_start crop_end rows_and_columns", "cropped"),  # [b, 3, size, size]
        make_node("Cast", "cropped", "values", to=TensorProto.FLOAT),  # 0 to 255
        make_node("Div", "values white", "shares"),  # 0 to 1
        make_node("Sub", "shares mean", "centred"),
        make_node("Div", "centred std", output),
    ]
    used = {name for node in nodes for name in node.input}
    return nodes, [make_constant(name, value) for name, value in _list_constants(preprocessing).items() if name in used]


def _list_constants(preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Return every constant that a node may name."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    size, full_size = preprocessing.size, preprocessing.full_size
    start = (full_size - size) // 2
    return {
        "two": np.array(2),
        "rows_and_columns": np.array([2, 3]),  # axes of [b, 3, h, w]
        "black": np.array(0, np.uint8),
        "full_size": np.array(float(full_size)),
        "zero": np.array(0.0),
        "half": np.array(0.5),
        "one": np.array(1.0),
        "first": np.array([0]),
        "last": np.array([-1]),
        "fixed_point": np.array(float(1 << PRECISION)),
        "rounding": np.array(1 << (PRECISION - 1), np.int32),
        "precision": np.array(1 << PRECISION, np.int32),
        "byte": np.array(1 << 8),
        "two_bytes": np.array(1 << 16),
        "byte_32": np.array(1 << 8, np.int32),
        "two_bytes_32": np.array(1 << 16, np.int32),
        "crop_start": np.array([start, start]),
        "crop_end": np.array([start + size] * 2),
        "white": np.array(255, np.float32),
        "mean": mean,
        "std": std,
    }


def _build_squaring(policy: str) -> Nodes:
    """Return nodes from `planes` `[b, 3, h, w]` to `square`: unchanged (squish), centre crop (crop), or with black bars (pad)."""
    if policy == "squish":
        return [make_node("Identity", "planes", "square")]
    sides = make_node("Shape", "planes", "sides", start=2)  # [h, w]
    if policy == "crop":
        return [
            sides,
            make_node("ReduceMin", "sides", "side", keepdims=1),  # [1]
            make_node("Sub", "sides side", "spare"),  # [2], pixels to remove per axis
            make_node("Div", "spare two", "begin"),
            make_node("Add", "begin side", "end"),
            make_node("Slice", "planes begin end rows_and_columns", "square"),  # [b, 3, side, side]
        ]
    return [
        sides,
        make_node("ReduceMax", "sides", "side", keepdims=1),  # [1]
        make_node("Sub", "side sides", "lacking"),  # [2], pixels to add per axis
        make_node("Div", "lacking two", "begin"),
        make_node("Sub", "lacking begin", "end"),
        make_node("Concat", "begin end", "bars", axis=0),  # [top, left, bottom, right]
        make_node("Pad", "planes bars black rows_and_columns", "square"),  # [b, 3, side, side]
    ]


def _build_height_scaling(planes: str, output: str) -> Nodes:
    """Return nodes that resize uint8 `planes` from `[b, 3, h, w]` to `[b, 3, full_size, w]`: the width scaling of the transposed planes."""
    turned, done = f"{output}_turned", f"{output}_done"
    return [
        make_node("Transpose", planes, turned, perm=SWAP_HEIGHT_AND_WIDTH),  # [b, 3, w, h]
        *_build_width_scaling(turned, done, prefix=output),  # [b, 3, w, full_size]
        make_node("Transpose", done, output, perm=SWAP_HEIGHT_AND_WIDTH),  # [b, 3, full_size, w]
    ]


def _build_width_scaling(planes: str, output: str, prefix: str) -> Nodes:
    """Return nodes that resize uint8 `planes` from `[b, 3, h, w]` to `[b, 3, h, full_size]`, to the bit as Pillow does.

    Pillow's `Resample.c`, bilinear filter: triangle weights in float64, rounded to fixed point with PRECISION bits, and a sum rounded to 8 bits.
    Each weight is split into three bytes, because products of bytes are exact and fast in integer arithmetic. `prefix` begins the names of
    the tensors between `planes` and `output`.
    """
    return [
        *_build_distances(planes, prefix),
        *_build_weights(prefix),
        *_build_byte_split(prefix),
        *_build_weighted_sum(planes, output, prefix),
    ]


def _build_distances(planes: str, prefix: str) -> Nodes:
    """Return nodes for `.distances` `[w, full_size]`: input pixel centres to output pixel centres, in input pixels, and `.width` of a triangle."""
    node = partial(make_node, prefix=prefix)
    return [
        node("Shape", planes, ".shape", start=3),  # [1]
        node("Squeeze", ".shape", ".count"),  # scalar w
        node("Cast", ".count", ".size", to=TensorProto.DOUBLE),
        node("Div", ".size full_size", ".scale"),  # input pixels per output pixel
        node("Max", ".scale one", ".width"),  # half the base of a triangle; an enlargement interpolates between neighbours
        node("Range", "zero .size one", ".inputs"),  # [w]
        node("Add", ".inputs half", ".places"),  # [w]
        node("Unsqueeze", ".places last", ".rows"),  # [w, 1]
        node("Range", "zero full_size one", ".outputs"),  # [full_size]
        node("Add", ".outputs half", ".middles"),  # [full_size]
        node("Mul", ".middles .scale", ".centres"),  # [full_size]
        node("Sub", ".rows .centres", ".offsets"),  # [w, full_size]
        node("Abs", ".offsets", ".distances"),  # [w, full_size]
    ]


def _build_weights(prefix: str) -> Nodes:
    """Return nodes from `.distances` to `.fixed` `[w, full_size]`: triangle weights with a sum of 1 per output pixel, in fixed point."""
    node = partial(make_node, prefix=prefix)
    return [
        node("Div", ".distances .width", ".shares"),
        node("Sub", "one .shares", ".slopes"),
        node("Max", ".slopes zero", ".triangles"),  # [w, full_size]
        node("ReduceSum", ".triangles first", ".sums", keepdims=1),  # [1, full_size]
        node("Div", ".triangles .sums", ".weights"),  # [w, full_size]
        node("Mul", ".weights fixed_point", ".scaled"),
        node("Round", ".scaled", ".rounded"),
        node("Cast", ".rounded", ".fixed", to=TensorProto.INT64),  # [w, full_size]
    ]


def _build_byte_split(prefix: str) -> Nodes:
    """Return nodes that split `.fixed` into `.top`, `.middle` and `.bottom`, each `[w, full_size]` from 0 to 255."""
    node = partial(make_node, prefix=prefix)
    return [
        node("Div", ".fixed two_bytes", ".top"),
        node("Mod", ".fixed two_bytes", ".rest"),
        node("Div", ".rest byte", ".middle"),
        node("Mod", ".rest byte", ".bottom"),
    ]


def _build_weighted_sum(planes: str, output: str, prefix: str) -> Nodes:
    """Return nodes from `planes` `[b, 3, h, w]` and the bytes of the weights to the uint8 `output` `[b, 3, h, full_size]`."""
    node = partial(make_node, prefix=prefix)
    products = [
        step
        for byte in BYTES
        for step in (
            node("Cast", f".{byte}", f".{byte}_byte", to=TensorProto.UINT8),  # [w, full_size]
            node("MatMulInteger", f"{planes} .{byte}_byte", f".{byte}_sum"),  # int32 [b, 3, h, full_size]
        )
    ]
    return [
        *products,
        node("Mul", ".top_sum two_bytes_32", ".top_part"),
        node("Mul", ".middle_sum byte_32", ".middle_part"),
        node("Add", ".top_part .middle_part", ".upper"),
        node("Add", ".upper .bottom_sum", ".sum"),
        node("Add", ".sum rounding", ".raised"),  # rounds to nearest
        node("Div", ".raised precision", ".whole"),  # int32 [b, 3, h, full_size]
        node("Cast", ".whole", output, to=TensorProto.UINT8),
    ]


def make_node(operator: str, inputs: str, output: str, prefix: str = "", **attributes: Any) -> onnx.NodeProto:
    """Return a node. Names of inputs are separated by spaces; a leading dot stands for `prefix` and an underscore.

    >>> node = make_node("Add", ".left right", ".sum", prefix="narrowed")
    >>> list(node.input), list(node.output)
    (['narrowed_left', 'right'], ['narrowed_sum'])
    """
    names = [f"{prefix}_{name[1:]}" if name.startswith(".") else name for name in (*inputs.split(), output)]
    return helper.make_node(operator, names[:-1], names[-1:], **attributes)


def make_constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    """Return a constant of a graph."""
    return numpy_helper.from_array(np.asarray(value), name)
