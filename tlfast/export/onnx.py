"""Export a trained network as `model.onnx`, from uint8 pixels to probabilities, and compare the file with the network."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..core import ExportError, ImageError, OnEvent, Progress
from ..core.errors import first_line
from ..core.system import release_memory
from ..data import Preprocessing, images
from ..inference import Network, open_network
from ..inference.onnx_model import FILE, INPUT, OUTPUT, batch_size
from ..models import to_network_input
from .onnx_preprocessing import NODE_PREFIX, TEMPERATURE, build_preprocessing, make_constant, make_node
from .types import Agreement

OPSET = 18
# Images to compare: as many as CHECKED_FLOPS permit in one of both networks, some ten seconds on two cores; see docs/benchmarks.md, "ONNX export"
MOST_CHECKED, LEAST_CHECKED, CHECKED_FLOPS = 512, 32, 1e12
BATCH = 8  # images per forward pass of the comparison; with 32 it takes more memory than all else in a partial training
MIN_AGREEMENT = 0.995  # share of images with equal labels, ties not counted
TIE = 1e-3  # difference of the two largest probabilities below which rounding may decide


def export_onnx(path: Path, model: nn.Module, preprocessing: Preprocessing, metadata: Mapping[str, str], temperature: float = 1.0) -> None:
    """Write a network as `model.onnx`, with `metadata`, so that the file is usable alone. Raises ExportError."""
    try:
        exported = build_onnx(model.cpu().eval(), preprocessing, temperature)
        helper.set_model_props(exported, dict(metadata))
        onnx.checker.check_model(exported)
        onnx.save(exported, path)
    except Exception as error:  # torch.onnx raises many types of exception for a network it cannot convert
        raise ExportError(
            f"{metadata.get('arch', 'the network')} cannot be written as ONNX ({first_line(error)})",
            "Use --no-onnx, or choose another --arch; model.safetensors and learner.pkl are complete",
        ) from error


def build_onnx(model: nn.Module, preprocessing: Preprocessing, temperature: float = 1.0) -> onnx.ModelProto:
    """Return the complete graph: uint8 RGB `[b, h, w, 3]` -> preprocessing as `images.prepare` -> network -> softmax `[b, c]`.

    Height and width are free, but equal within a batch. The logits are divided by `temperature`.
    """
    exported = onnx.load_from_string(_export_network(model, preprocessing.size))
    graph = exported.graph
    x, logits = graph.input[0].name, graph.output[0].name
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    before, constants = build_preprocessing(preprocessing, x)
    after = [
        make_node("Div", f"{logits} {TEMPERATURE}", "calibrated"),  # [b, c]
        make_node("Softmax", "calibrated", OUTPUT, axis=1),  # [b, c]
    ]
    for number, node in enumerate([*before, *after]):
        node.name = f"{NODE_PREFIX}{number}"
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, make_constant(TEMPERATURE, np.array(temperature, np.float32))])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))
    return exported


def sample_images(sources: Sequence[str], model: nn.Module, size: int) -> Sequence[str]:
    """Return evenly spaced image files for `check_onnx`: at most MOST_CHECKED, and fewer for a network with many operations."""
    count = min(MOST_CHECKED, max(LEAST_CHECKED, int(CHECKED_FLOPS / _count_flops(model, size))))
    return sources[:: math.ceil(len(sources) / count)]


def _count_flops(model: nn.Module, size: int) -> int:
    """Return the floating-point operations of a forward pass on one image, a multiplication and an addition as two; at least 1."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return max(1, counter.get_total_flops())


def check_onnx(
    path: Path, model: nn.Module, preprocessing: Preprocessing, evaluated: Mapping[str, int], on_event: OnEvent, temperature: float = 1.0
) -> Agreement:
    """Compare the probabilities of a `model.onnx` with those of the network on image files. Raises ExportError if too many labels differ.

    `evaluated` is the class index of each image file in the evaluation.
    """
    release_memory()  # of the training
    network, sources = open_network(path), list(evaluated)
    pairs: list[tuple[str, np.ndarray, np.ndarray]] = []
    for start in range(0, len(sources), BATCH):
        batch = sources[start : start + BATCH]
        pairs += _compare_batch(network, model, preprocessing, batch, temperature)
        on_event(Progress("checking model.onnx", start + len(batch), len(sources)))
    if not pairs:
        raise ExportError(f"none of {len(sources)} images for the check of {FILE} can be read, the first: {sources[0]}", "Restore the images, and train again")
    hint = "Use model.safetensors or learner.pkl, and report a bug with the value of --arch; --no-onnx skips this export"
    changed = sum(int(actual.argmax()) != evaluated[source] for source, _, actual in pairs)
    return replace(judge_agreement(FILE, pairs, hint), changed=changed)


def judge_agreement(file: str, pairs: Sequence[tuple[str, np.ndarray, np.ndarray]], hint: str) -> Agreement:
    """Summarize (source, probabilities of the network `[c]`, probabilities of the file `[c]`) of each image. Raises ExportError if too many labels differ."""
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


def _compare_batch(
    network: Network, model: nn.Module, preprocessing: Preprocessing, sources: Sequence[str], temperature: float
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (source, probabilities of the network `[c]`, probabilities of the file `[c]`) of each image that can be read."""
    opened = dict(open_readable(sources))
    if not opened:
        return []
    prepared = np.stack([images.prepare(image, preprocessing.size, preprocessing.full_size, preprocessing.resize) for image in opened.values()])
    expected = predict_torch(model, prepared, preprocessing, temperature)  # [b, c]
    return list(zip(opened, expected, _predict_onnx(network, [np.asarray(image) for image in opened.values()]), strict=True))


def open_readable(sources: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
    """Yield path and image of each source that can be read: files may have been damaged or removed since they were decoded for training."""
    for source in sources:
        with suppress(ImageError):
            yield source, images.open_image(source)


def _predict_onnx(network: Network, pixels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Map images, uint8 `[h, w, 3]`, to probabilities `[c]`. Consecutive images of one size form a batch."""
    probabilities: list[np.ndarray] = []
    for _, same in groupby(pixels, key=lambda image: image.shape):
        images_of_size = list(same)
        step = batch_size(images_of_size[0])
        for start in range(0, len(images_of_size), step):
            probabilities += list(network.probabilities(np.stack(images_of_size[start : start + step])))
    return probabilities


@torch.inference_mode()
def predict_torch(model: nn.Module, pixels: np.ndarray, preprocessing: Preprocessing, temperature: float) -> np.ndarray:
    """Map prepared images, uint8 `[b, size, size, 3]`, to the probabilities of the network, float32 `[b, c]`."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)  # [b, 3, size, size]
    logits: torch.Tensor = model(to_network_input((batch - mean) / std))  # [b, c]
    probabilities: np.ndarray = (logits / temperature).softmax(dim=1).numpy()
    return probabilities


def _export_network(model: nn.Module, size: int) -> bytes:
    """Return torch's ONNX export of the network: float32 `[b, 3, size, size]` -> logits `[b, c]`."""
    target = io.BytesIO()
    write_onnx(model, torch.zeros(2, 3, size, size), target, ("x", "logits"))
    return target.getvalue()


def write_onnx(model: nn.Module, example: torch.Tensor, target: Any, names: tuple[str, str], opset: int = OPSET) -> None:
    """Write torch's ONNX export of a network to a path or a binary file. `names` are those of its input and its output, of any batch size."""
    source, result = names
    axes = {source: {0: "batch"}, result: {0: "batch"}}
    options: dict[str, Any] = {"input_names": [source], "output_names": [result], "dynamic_axes": axes, "opset_version": opset}
    with warnings.catch_warnings(), _without_log_of_torch():
        warnings.simplefilter("ignore")  # tracing warns of every Python number in a network
        torch.onnx.export(model, (example,), target, dynamo=False, **options)


@contextmanager
def _without_log_of_torch() -> Iterator[None]:
    """Switch off a log of torch that cannot be switched off otherwise: it prints the graph of a network that cannot be converted to stdout."""
    names: Any = torch._C
    log = getattr(names, "_jit_onnx_log", None)  # not in all versions
    if log is None:
        yield
        return
    names._jit_onnx_log = lambda *words: None
    try:
        yield
    finally:
        names._jit_onnx_log = log
