"""Save a trained model as `model.safetensors` and `learner.pkl` in a run folder, and load it again."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..core import RunError, RunRecord
from ..core.errors import first_line
from ..core.files import convert_write_errors, set_permissions
from ..core.run_files import HEAD_FILE, LEARNER_FILE, WEIGHTS_FILE
from ..data import Preprocessing
from ..models import build_model
from .fastai_learner import export_learner
from .timm_format import CLASSIFIER, restore_state


def save_model(folder: Path, model: nn.Module, classes: Sequence[str], arch: str, preprocessing: Preprocessing, temperature: float = 1.0) -> None:
    """Write `model.safetensors`, with classes, mean, std and temperature in its header, and `learner.pkl`.

    The weights are unchanged in `model.safetensors`. A fastai learner cannot store a temperature, so `learner.pkl` has it in the last layer.
    Raises OSError.
    """
    header = {
        "format": "pt",
        "arch": arch,
        "classes": json.dumps(list(classes)),
        "mean": _join_numbers(preprocessing.mean),
        "std": _join_numbers(preprocessing.std),
        "temperature": repr(temperature),
    }
    write_tensors(folder / WEIGHTS_FILE, model.state_dict(), header)
    export_learner(folder / LEARNER_FILE, scale_logits(model, temperature), classes, preprocessing)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a safetensors file; equal tensors and headers give equal bytes. Raises OSError."""
    with convert_write_errors(path):
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path, header)
        _sort_header(path)
    set_permissions(path, 0o644)  # safetensors creates it with mode 600


def _sort_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, so that equal trainings write equal bytes; the library writes it in random order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= size:
            file.seek(8)
            file.write(ordered.ljust(size))


def scale_logits(model: nn.Module, temperature: float) -> nn.Module:
    """Return a model whose logits are divided by `temperature`. It shares all layers with `model` except the last."""
    assert isinstance(model, nn.Sequential)
    body, head = model
    assert isinstance(head, nn.Sequential)
    last = copy.deepcopy(head[-1])
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    return nn.Sequential(body, nn.Sequential(*head[:-1], last))


def load_model(run: RunRecord) -> nn.Module:
    """Rebuild the model of a run from `model.safetensors`, on the CPU and in eval mode. No pickle is opened. Raises RunError.

    The file may be that of a timm model, as `tlfast push` writes it; then `head.safetensors` has the head.
    """
    settings = run.settings
    path = run.folder / WEIGHTS_FILE
    try:
        model = build_model(settings.arch, len(run.manifest["classes"]), settings.size, settings.head)
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        state = load_file(path)
        if CLASSIFIER in header:
            state = restore_state(state, header[CLASSIFIER], load_file(run.folder / HEAD_FILE))
        model.load_state_dict(state)
    except Exception as error:  # safetensors and torch have exceptions of their own for a missing, truncated or unrelated file
        raise RunError(f"{path} cannot be loaded: {first_line(error)}", "Train again, or give another run; `tlfast runs` lists them") from error
    return model.eval()


def _join_numbers(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
