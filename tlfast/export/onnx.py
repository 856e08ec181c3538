"""The trained network as one ONNX file, from uint8 pixels to probabilities, and the proof that it answers as the network does."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ..core.errors import ExportError, first_line
from ..core.events import OnEvent, Progress
from ..data import images
from ..data.types import Preprocessing
from ..inference.onnx_model import FILE, INPUT, OUTPUT, open_network
from ..models.build import to_network_input
from .types import Agreement

OPSET = 18
PRECISION = 22  # bits of a weight in Pillow's resizing
CHECKED = 512  # images of the valid part, at most, that both must agree on; at least half as many where there are more
BATCH = 64  # images that the network is asked at once
OURS = "tlfast/"  # begins the names of the nodes around the network
LEAST_AGREEMENT = 0.995  # of their likeliest classes


def export_onnx(path: Path, model: nn.Module, preprocessing: Preprocessing, about: Mapping[str, str], temperature: float = 1.0) -> None:
    """Write `model.onnx`; `about` goes into its metadata, so that the file alone is enough. Raises ExportError."""
    try:
        graph = build_onnx(model.cpu().eval(), preprocessing, temperature)
        helper.set_model_props(graph, dict(about))
        onnx.checker.check_model(graph)
        onnx.save(graph, path)
    except Exception as error:  # torch.onnx raises nearly anything for a network that it cannot convert
        raise ExportError(
            f"{about.get('arch', 'the network')} cannot be written as ONNX ({first_line(error)})", "Use --no-onnx; model.safetensors and learner.pkl are there"
        ) from error


def build_onnx(model: nn.Module, preprocessing: Preprocessing, temperature: float = 1.0) -> onnx.ModelProto:
    """Return the whole graph: uint8 RGB `[b, h, w, 3]` -> resized as `images.prepare` does -> network -> softmax, `[b, c]`.

    Height and width are free; all images of a batch have the same. The logits are divided by `temperature`.
    """
    exported = onnx.load_from_string(_export_network(model, preprocessing.size))
    graph = exported.graph
    x, logits = graph.input[0].name, graph.output[0].name
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    before, constants = _build_preparation(preprocessing, x)
    after = [
        helper.make_node("Div", [logits, "temperature"], ["calibrated"]),
        helper.make_node("Softmax", ["calibrated"], [OUTPUT], axis=1),
    ]
    for number, node in enumerate([*before, *after]):
        node.name = f"{OURS}{number}"
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, _make_constant("temperature", np.array(temperature, np.float32))])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))
    return exported


def check_onnx(path: Path, model: nn.Module, preprocessing: Preprocessing, sources: Sequence[str], on_event: OnEvent, temperature: float = 1.0) -> Agreement:
    """Compare the file with the network on images, each from its file to its probabilities. Raises ExportError where they disagree."""
    network = open_network(path)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    differences, disagreements = [], []
    for start in range(0, len(sources), BATCH):
        block = sources[start : start + BATCH]
        opened = [images.open_image(source) for source in block]
        prepared = np.stack([images.prepare(image, preprocessing.size, preprocessing.full_size, preprocessing.resize) for image in opened])
        for source, image, ours in zip(block, opened, _run_torch(model, prepared, mean, std, temperature), strict=True):
            theirs = network.probabilities(np.asarray(image)[None])[0]
            differences.append(float(np.abs(ours - theirs).max()))
            if ours.argmax() != theirs.argmax():
                margin = np.sort(ours)[-2:]
                disagreements.append({"path": source, "margin": float(margin[1] - margin[0])})
        on_event(Progress("checking model.onnx", start + len(block), len(sources)))
    agreement = Agreement(len(sources), 1 - len(disagreements) / len(sources), max(differences), disagreements)
    if agreement.top1 < LEAST_AGREEMENT:
        raise ExportError(
            f"{FILE} disagrees with the network on {len(disagreements)} of {len(sources)} images (probabilities differ by up to {max(differences):.2g})",
            "Use model.safetensors or learner.pkl, and report the --arch; --no-onnx leaves the file out",
        )
    return agreement


@torch.inference_mode()
def _run_torch(model: nn.Module, pixels: np.ndarray, mean: torch.Tensor, std: torch.Tensor, temperature: float) -> np.ndarray:
    """Prepared images, uint8 `[b, size, size, 3]`, to the network's own probabilities `[b, c]`."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    return (model(to_network_input((batch - mean) / std)) / temperature).softmax(dim=1).numpy()


def _export_network(model: nn.Module, size: int) -> bytes:
    """Return torch's own conversion of the network: `[b, 3, size, size]` float -> logits `[b, c]`."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every Python number in a network
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, size, size),),
            target,
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return target.getvalue()


def _build_preparation(preprocessing: Preprocessing, x: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes, with their constants, that make of `images` what the network expects as `x`."""
    node = helper.make_node
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    full, start = preprocessing.full_size, (preprocessing.full_size - preprocessing.size) // 2
    constants = {
        "two": np.array(2),
        "rows_and_columns": np.array([2, 3]),
        "black": np.array(0, np.uint8),
        "full_size": np.array(float(full)),
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
        "crop_end": np.array([start + preprocessing.size] * 2),
        "white": np.array(255, np.float32),
        "mean": mean,
        "std": std,
    }
    nodes = [
        node("Transpose", [INPUT], ["planes"], perm=[0, 3, 1, 2]),
        *_build_squaring(preprocessing.resize),
        *_build_scaling("square", "narrowed", axis=3),
        *_build_scaling("narrowed", "resized", axis=2),
        node("Slice", ["resized", "crop_start", "crop_end", "rows_and_columns"], ["cropped"]),
        node("Cast", ["cropped"], ["values"], to=TensorProto.FLOAT),
        node("Div", ["values", "white"], ["shares"]),
        node("Sub", ["shares", "mean"], ["centred"]),
        node("Div", ["centred", "std"], [x]),
    ]
    used = {name for each in nodes for name in each.input}
    return nodes, [_make_constant(name, value) for name, value in constants.items() if name in used]


def _build_scaling(given: str, result: str, axis: int) -> list[onnx.NodeProto]:
    """Return nodes that resize uint8 planes `[b, 3, h, w]` along one axis to `full_size`, to the bit as Pillow does.

    Pillow's `Resample.c`: a triangle as wide as an output pixel, its weights (in double) rounded to fixed point, and the sum rounded to 8
    bits. ONNX's own antialiased Resize weighs in float32 in onnxruntime and decides otherwise where a sum lies halfway, for one value in
    fifty at some sizes, which moved probabilities by up to 0.03. Here each weight is taken apart into three bytes, so that sums of bytes times
    bytes, which integer hardware is fast at, are exact.
    """
    node, own = helper.make_node, lambda name: f"{result}_{name}"
    x = given if axis == 3 else own("turned")
    nodes = [] if axis == 3 else [node("Transpose", [given], [x], perm=[0, 1, 3, 2])]
    nodes += [
        node("Shape", [x], [own("shape")], start=3),
        node("Squeeze", [own("shape")], [own("count")]),
        node("Cast", [own("count")], [own("size")], to=TensorProto.DOUBLE),
        node("Div", [own("size"), "full_size"], [own("scale")]),
        node("Max", [own("scale"), "one"], [own("width")]),
        node("Range", ["zero", own("size"), "one"], [own("inputs")]),
        node("Add", [own("inputs"), "half"], [own("places")]),
        node("Unsqueeze", [own("places"), "last"], [own("rows")]),  # [w, 1]
        node("Range", ["zero", "full_size", "one"], [own("outputs")]),
        node("Add", [own("outputs"), "half"], [own("middles")]),
        node("Mul", [own("middles"), own("scale")], [own("centres")]),  # [full_size]
        node("Sub", [own("rows"), own("centres")], [own("offsets")]),
        node("Abs", [own("offsets")], [own("distances")]),
        node("Div", [own("distances"), own("width")], [own("shares")]),
        node("Sub", ["one", own("shares")], [own("slopes")]),
        node("Max", [own("slopes"), "zero"], [own("triangles")]),
        node("ReduceSum", [own("triangles"), "first"], [own("sums")], keepdims=1),
        node("Div", [own("triangles"), own("sums")], [own("weights")]),  # [w, full_size]
        node("Mul", [own("weights"), "fixed_point"], [own("scaled")]),
        node("Round", [own("scaled")], [own("rounded")]),
        node("Cast", [own("rounded")], [own("fixed")], to=TensorProto.INT64),
        node("Div", [own("fixed"), "two_bytes"], [own("top")]),
        node("Mod", [own("fixed"), "two_bytes"], [own("rest")]),
        node("Div", [own("rest"), "byte"], [own("middle")]),
        node("Mod", [own("rest"), "byte"], [own("bottom")]),
    ]
    for part in ("top", "middle", "bottom"):
        nodes += [
            node("Cast", [own(part)], [own(f"{part}_byte")], to=TensorProto.UINT8),
            node("MatMulInteger", [x, own(f"{part}_byte")], [own(f"{part}_sum")]),
        ]
    nodes += [
        node("Mul", [own("top_sum"), "two_bytes_32"], [own("top_part")]),
        node("Mul", [own("middle_sum"), "byte_32"], [own("middle_part")]),
        node("Add", [own("top_part"), own("middle_part")], [own("upper")]),
        node("Add", [own("upper"), own("bottom_sum")], [own("sum")]),
        node("Add", [own("sum"), "rounding"], [own("raised")]),
        node("Div", [own("raised"), "precision"], [own("whole")]),
        node("Cast", [own("whole")], [result if axis == 3 else own("done")], to=TensorProto.UINT8),
    ]
    return nodes if axis == 3 else [*nodes, node("Transpose", [own("done")], [result], perm=[0, 1, 3, 2])]


def _build_squaring(policy: str) -> list[onnx.NodeProto]:
    """Return nodes from `planes` to `square`: as they are (squish), their centre (crop), or with black bars (pad)."""
    node = helper.make_node
    if policy == "squish":
        return [node("Identity", ["planes"], ["square"])]
    sides = node("Shape", ["planes"], ["sides"], start=2)
    if policy == "crop":
        return [
            sides,
            node("ReduceMin", ["sides"], ["side"], keepdims=1),
            node("Sub", ["sides", "side"], ["spare"]),
            node("Div", ["spare", "two"], ["begin"]),
            node("Add", ["begin", "side"], ["end"]),
            node("Slice", ["planes", "begin", "end", "rows_and_columns"], ["square"]),
        ]
    return [
        sides,
        node("ReduceMax", ["sides"], ["side"], keepdims=1),
        node("Sub", ["side", "sides"], ["lacking"]),
        node("Div", ["lacking", "two"], ["begin"]),
        node("Sub", ["lacking", "begin"], ["end"]),
        node("Concat", ["begin", "end"], ["bars"], axis=0),
        node("Pad", ["planes", "bars", "black", "rows_and_columns"], ["square"]),
    ]


def _make_constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)
