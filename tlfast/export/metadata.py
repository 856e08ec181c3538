"""Metadata of an exported model file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PureWindowsPath

from ..core import Settings
from ..core.system import package_versions


def describe_model(settings: Settings, classes: Sequence[str], run_id: str, weights: str, licence: str) -> dict[str, str]:
    """Return the metadata of an exported file: what a user of the file alone needs. `classes` is a JSON list in output order."""
    names = ("task", "arch", "size", "crop_pct", "resize")
    return {
        **{name: str(getattr(settings, name)) for name in names},
        "strategy": settings.strategy_label,
        "classes": json.dumps(list(classes)),
        "run": run_id,
        "weights": weights,
        "licence": licence,
        "tlfast": package_versions()["tlfast"],
    }


def hide_folder(weights: str) -> str:
    """Return a description of pretrained weights without the folder of their file. Exported files of earlier versions name it.

    >>> hide_folder("/home/me/net.safetensors (--weights)")
    'net.safetensors (--weights)'
    """
    path = PureWindowsPath(weights)  # which takes the separators of all systems
    return path.name if path.anchor else weights


def hide_folder_in(exported: bytes) -> bytes:
    """Return an ONNX file whose metadata name the pretrained weights without their folder. A file that is none stays the same."""
    import onnx  # takes a second

    try:
        model = onnx.load_from_string(exported)
    except Exception:  # DecodeError of protobuf, whose package has no types
        return exported
    info = {entry.key: entry.value for entry in model.metadata_props}
    shown = hide_folder(info.get("weights", ""))
    if shown == info.get("weights", ""):
        return exported
    onnx.helper.set_model_props(model, {**info, "weights": shown})
    return bytes(model.SerializeToString())
