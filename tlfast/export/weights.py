"""From a trained model to a run folder: weights, a fastai learner, metrics, predictions and history; and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..core.errors import RunError
from ..core.files import convert_write_errors
from ..core.runs import Run
from ..core.settings import Settings
from ..data.types import Preprocessing
from ..models.build import build_model
from .fastai_learner import LEARNER, export_learner

WEIGHTS = "model.safetensors"


def save_model(folder: Path, model: nn.Module, classes: Sequence[str], arch: str, preprocessing: Preprocessing, temperature: float = 1.0) -> None:
    """Write `model.safetensors`, with classes, normalisation and temperature in its header, and `learner.pkl`.

    The weights are as they were trained. A fastai learner has no place for a temperature: there the last layer is divided by it.
    """
    header = {
        "format": "pt",
        "arch": arch,
        "classes": json.dumps(list(classes)),
        "mean": _join_numbers(preprocessing.mean),
        "std": _join_numbers(preprocessing.std),
    }
    header["temperature"] = repr(temperature)
    with convert_write_errors(folder / WEIGHTS):
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS, header)
        _sort_header(folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors keeps the file to its owner
    export_learner(folder / LEARNER, scale_logits(model, temperature), classes, preprocessing)


def _sort_header(path: Path) -> None:
    """Sort what the head of a safetensors file says, which its library writes in another order each time: the same training gives the same bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= size:
            file.seek(8)
            file.write(ordered.ljust(size))


def scale_logits(model: nn.Module, temperature: float) -> nn.Module:
    """Return a model that shares all layers but the last, which gives its logits divided by a temperature."""
    body, head = model
    last = copy.deepcopy(head[-1])
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    return nn.Sequential(body, nn.Sequential(*head[:-1], last))


def load_model(run: Run) -> nn.Module:
    """Rebuild a run's model on the CPU, in eval mode, from `model.safetensors`; no pickle is opened. Raises RunError."""
    settings = Settings.from_dict(run.manifest["settings"])
    path = run.folder / WEIGHTS
    try:
        state = load_file(path)
        model = build_model(settings.arch, len(run.manifest["classes"]), settings.size)
        model.load_state_dict(state)
    except Exception as error:  # safetensors' and torch's own, on a missing, cut or foreign file
        raise RunError(f"{path} cannot be loaded: {str(error).splitlines()[0]}", "Train again, or name another run; tlfast runs lists them") from error
    return model.eval()


def _join_numbers(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
