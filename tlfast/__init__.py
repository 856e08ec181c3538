"""Rapid prototyping of transfer learning in image classification, on fastai and timm.

from tlfast import load
load("exports/fer").predict("face.jpg").label
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, overload

if TYPE_CHECKING:
    from pathlib import Path

    from fastai.learner import Learner

    from .inference.classifier import Classifier

__all__ = ["load"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime tells its maker that it is used, unless it is asked not to before it is imported


@overload
def load(reference: str | Path, out: str = ..., *, verify: bool = ..., backend: Literal["onnx"] = ..., trust: bool = ...) -> Classifier: ...


@overload
def load(reference: str | Path, out: str = ..., *, verify: bool = ..., backend: Literal["fastai"], trust: bool = ...) -> Learner: ...


def load(reference, out="exports", *, verify=True, backend="onnx", trust=False):
    """Load a trained classifier: a run folder, `exports/<task>` (its latest run), a task's name, a run id, or a `model.onnx`.

    Returns a `Classifier`, which needs no torch; with `backend="fastai"` the fastai Learner. That one is a pickle, and opening it runs
    whatever code is in it, so it needs `trust=True`. A file that is not as it was exported is refused unless `verify=False`. Raises TlfastError.
    """
    from .inference.classifier import load as load_classifier

    if backend == "onnx":
        return load_classifier(reference, out, verify)
    from .core import runs
    from .core.system import hide_known_warnings

    hide_known_warnings()
    from .export.fastai_learner import open_learner

    return open_learner(runs.find(str(reference), out, verify), trust)
