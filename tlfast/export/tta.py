"""Test-time augmentation inside an ONNX file: it runs the network on several views of each image and averages the logits.

The views are made from the image as it is given, before it is resized, and all have the same size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from ..core import ExportError
from ..inference.onnx_model import INPUT, VIEWS
from .onnx_preprocessing import NODE_PREFIX, TEMPERATURE_NAME, Nodes, make_constant, make_node

SHARE = (7, 8)  # numerator and denominator: side of a crop as a share of that of the image
CORNERS = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}  # shares of the spare rows and columns
VIEWED = "views"  # name of the tensor of all views, [v * b, h, w, 3]


def write_views(source: Path, target: Path, views: str) -> None:
    """Write a copy of the `model.onnx` at `source` that averages the logits over `views`, a key of `BUILDERS`, at temperature 1.

    Raises ExportError for a file of an early version of tlfast.
    """
    exported = onnx.load(source)
    nodes, constants, count = BUILDERS[views]()
    scaling = next((node for node in exported.graph.node if node.op_type == "Div" and TEMPERATURE_NAME in node.input), None)
    if scaling is None:
        raise ExportError(f"{source} was written by an early version of tlfast", "Train again")
    graph = list(exported.graph.node)
    for node in graph:
        node.input[:] = [VIEWED if name == INPUT else name for name in node.input]
    logits = scaling.input[0]
    average = [
        make_node("Reshape", f"{logits} by_view", "of_views"),  # [v, b, c]
        make_node("ReduceMean", "of_views first", "averaged", keepdims=0),  # [b, c]
    ]
    scaling.input[0] = "averaged"
    place = graph.index(scaling)
    for number, node in enumerate([*nodes, *average]):
        node.name = f"{NODE_PREFIX}tta/{number}"
    del exported.graph.node[:]
    exported.graph.node.extend([*nodes, *graph[:place], *average, *graph[place:]])
    existing = {constant.name for constant in exported.graph.initializer}
    constants |= {"by_view": np.array([count, -1, len(_read_classes(exported))]), "first": np.array([0])}
    exported.graph.initializer.extend(make_constant(name, value) for name, value in constants.items() if name not in existing)
    helper.set_model_props(exported, {**_read_metadata(exported), VIEWS: str(count), "tta": views})
    _set_temperature(exported, 1.0)
    onnx.checker.check_model(exported)
    onnx.save(exported, target)


def set_temperature(path: Path, temperature: float) -> None:
    """Change the divisor of the logits in an ONNX file of `write_views`. Its metadata have it as "temperature"."""
    exported = onnx.load(path)
    _set_temperature(exported, temperature)
    onnx.save(exported, path)


def _set_temperature(exported: onnx.ModelProto, temperature: float) -> None:
    constant = next(constant for constant in exported.graph.initializer if constant.name == TEMPERATURE_NAME)
    constant.CopyFrom(make_constant(TEMPERATURE_NAME, np.array(temperature, np.float32)))
    helper.set_model_props(exported, {**_read_metadata(exported), TEMPERATURE_NAME: str(temperature)})


def _read_metadata(exported: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in exported.metadata_props}


def _read_classes(exported: onnx.ModelProto) -> list[str]:
    classes: list[str] = json.loads(_read_metadata(exported)["classes"])
    return classes


# Views: nodes from the images [b, h, w, 3] to all views [v * b, h', w', 3], constants, and the number of views v.

Built = tuple[Nodes, dict[str, np.ndarray], int]


def _build_flip() -> Built:
    """The image and its mirror image."""
    nodes, constants = _mirror(INPUT)
    return nodes, constants, 2


def _build_crops() -> Built:
    """The four corners and the centre, each with its mirror image, as ten-crop evaluation (Krizhevsky et al. 2012)."""
    nodes = [
        make_node("Shape", INPUT, "tta_sides", start=1, end=3),  # [h, w]
        make_node("Mul", "tta_sides tta_numerator", "tta_multiplied"),
        make_node("Div", "tta_multiplied tta_denominator", "tta_share"),
        make_node("Max", "tta_share tta_least", "tta_extent"),  # [2], rows and columns of a crop
        make_node("Sub", "tta_sides tta_extent", "tta_spare"),
        make_node("Div", "tta_spare tta_two", "tta_centre_start"),
    ]
    constants = {
        "tta_numerator": np.array(SHARE[0]),
        "tta_denominator": np.array(SHARE[1]),
        "tta_least": np.array(1),
        "tta_two": np.array(2),
        "tta_rows_and_columns": np.array([1, 2]),  # axes of [b, h, w, 3]
    }
    for name, corner in CORNERS.items():
        constants[f"tta_{name}"] = np.array(corner)
        nodes.append(make_node("Mul", f"tta_spare tta_{name}", f"tta_{name}_start"))
    names = [*CORNERS, "centre"]
    for name in names:
        nodes += [
            make_node("Add", f"tta_{name}_start tta_extent", f"tta_{name}_end"),
            make_node("Slice", f"{INPUT} tta_{name}_start tta_{name}_end tta_rows_and_columns", f"tta_{name}_crop"),
        ]
    nodes.append(make_node("Concat", " ".join(f"tta_{name}_crop" for name in names), "tta_crops", axis=0))
    mirrored, more = _mirror("tta_crops")
    return [*nodes, *mirrored], constants | more, 2 * len(names)


def _mirror(images: str) -> tuple[Nodes, dict[str, np.ndarray]]:
    """Return nodes from `images` to VIEWED: the images, then their mirror images."""
    nodes = [
        make_node("Slice", f"{images} tta_last tta_before_first tta_columns tta_backwards", "tta_mirrored"),
        make_node("Concat", f"{images} tta_mirrored", VIEWED, axis=0),
    ]
    constants = {
        "tta_last": np.array([-1]),
        "tta_before_first": np.array([np.iinfo(np.int64).min]),
        "tta_columns": np.array([2]),  # axis of [b, h, w, 3]
        "tta_backwards": np.array([-1]),
    }
    return nodes, constants


BUILDERS: Mapping[str, Callable[[], Built]] = {"flip": _build_flip, "crops": _build_crops}
