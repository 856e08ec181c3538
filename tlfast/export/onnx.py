"""Export a trained network as `model.onnx`, from uint8 pixels to probabilities, and compare the file with the network."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..core import ExportError, OnEvent
from ..core.errors import first_line
from ..core.run_files import ONNX_FILE
from ..core.system import release_memory
from ..data import Preprocessing
from ..inference import open_network
from ..inference.onnx_model import INPUT, OUTPUT, predict_stream
from .agreement import ResizedInput, compare_with_network, judge_agreement
from .onnx_preprocessing import NODE_PREFIX, TEMPERATURE_NAME, build_preprocessing, make_constant, make_node
from .types import Agreement

OPSET = 18
# Images to compare: as many as CHECKED_FLOPS permit in one of both networks, some ten seconds on two cores; see docs/benchmarks.md, "ONNX export"
MAX_CHECKED, MIN_CHECKED, CHECKED_FLOPS = 512, 32, 1e12


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
        make_node("Div", f"{logits} {TEMPERATURE_NAME}", "calibrated"),  # [b, c]
        make_node("Softmax", "calibrated", OUTPUT, axis=1),  # [b, c]
    ]
    for number, node in enumerate([*before, *after]):
        node.name = f"{NODE_PREFIX}{number}"
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, make_constant(TEMPERATURE_NAME, np.array(temperature, np.float32))])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes]))
    return exported


def sample_images(sources: Sequence[str], model: nn.Module, size: int) -> Sequence[str]:
    """Return evenly spaced image files for `check_onnx`: at most MAX_CHECKED, and fewer for a network with many operations."""
    count = min(MAX_CHECKED, max(MIN_CHECKED, int(CHECKED_FLOPS / _count_flops(model, size))))
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
    exported = open_network(path)

    def predict(opened: Sequence[np.ndarray], prepared: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(probabilities) for _, probabilities in predict_stream(exported, opened, np.asarray)]

    pairs = compare_with_network(ONNX_FILE, predict, ResizedInput(model, preprocessing, temperature), preprocessing, list(evaluated), on_event)
    hint = "Use model.safetensors or learner.pkl, and report a bug with the value of --arch; --no-onnx skips this export"
    changed = sum(int(actual.argmax()) != evaluated[source] for source, _, actual in pairs)
    return replace(judge_agreement(ONNX_FILE, pairs, hint), changed=changed)


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
