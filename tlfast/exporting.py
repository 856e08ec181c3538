"""From a trained model to a run folder: weights, a fastai learner, metrics, predictions and history; and back."""

from __future__ import annotations

import copy
import json
import tempfile
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter, Normalize
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import PadMode, RandomCrop, Resize, ResizeMethod
from fastai.vision.data import ImageBlock
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from torch import nn

from .calibration import losses
from .core.errors import RunError, UsageError
from .core.files import convert_write_errors, write_csv, write_json
from .core.runs import METRICS, Run, seal
from .core.settings import Settings
from .core.system import package_versions
from .data.types import Row, Stats
from .learner import build_model
from .results import Evaluation, Phase, Predictions

WEIGHTS = "model.safetensors"
LEARNER = "learner.pkl"
PREDICTIONS = "predictions.parquet"
METHODS = {"squish": ResizeMethod.Squish, "crop": ResizeMethod.Crop, "pad": ResizeMethod.Pad}


def save_model(folder: Path, model: nn.Module, classes: Sequence[str], settings: Settings, stats: Stats, temperature: float = 1.0) -> None:
    """Write `model.safetensors`, with classes, normalisation and temperature in its header, and `learner.pkl`.

    The weights are as they were trained. A fastai learner has no place for a temperature: there the last layer is divided by it.
    """
    header = {"format": "pt", "arch": settings.arch, "classes": json.dumps(list(classes)), "mean": _joined(stats[0]), "std": _joined(stats[1])}
    header["temperature"] = repr(temperature)
    with convert_write_errors(folder / WEIGHTS):
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS, header)
        _in_order(folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors keeps the file to its owner
    export_learner(folder / LEARNER, cooled(model, temperature), classes, settings, stats)


def _in_order(path: Path) -> None:
    """Sort what the head of a safetensors file says, which its library writes in another order each time: the same training gives the same bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= size:
            file.seek(8)
            file.write(ordered.ljust(size))


def cooled(model: nn.Module, temperature: float) -> nn.Module:
    """Return a model that shares all layers but the last, which gives its logits divided by a temperature."""
    body, head = model
    last = copy.deepcopy(head[-1])
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    return nn.Sequential(body, nn.Sequential(*head[:-1], last))


def export_learner(path: Path, model: nn.Module, classes: Sequence[str], settings: Settings, stats: Stats) -> None:
    """Write a learner that fastai's `load_learner` opens where tlfast is not installed: it holds fastai's and timm's objects only."""
    with tempfile.TemporaryDirectory() as scratch:
        # A DataBlock opens one image when it is built; this one is thrown away again by `export`.
        sample = Path(scratch) / "sample.png"
        Image.new("RGB", (settings.full_size, settings.full_size)).save(sample)
        frame = pd.DataFrame({"path": [str(sample)] * 2, "label": [classes[0]] * 2, "is_valid": [False, True]})
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock(vocab=list(classes), sort=False)),
            get_x=ColReader("path"),
            get_y=ColReader("label"),
            splitter=ColSplitter("is_valid"),
            item_tfms=resizing(settings),
            batch_tfms=Normalize.from_stats(*stats, cuda=False),
        )
        dls = block.dataloaders(frame, bs=1, num_workers=0, device=torch.device("cpu"))
        learn = Learner(dls, model.cpu(), loss_func=CrossEntropyLossFlat(), path=Path(scratch))
        with warnings.catch_warnings(), convert_write_errors(path):
            warnings.simplefilter("ignore")  # fastai warns that a learner is a pickle; the README says so
            learn.export(path.absolute())


def resizing(settings: Settings) -> list:
    """Return fastai's own transforms that do what `images.prepare` does; its RandomCrop takes the centre outside training."""
    resize = Resize(settings.full_size, method=METHODS[settings.resize], pad_mode=PadMode.Zeros)
    return [resize] if settings.full_size == settings.size else [resize, RandomCrop(settings.size)]


def save_records(folder: Path, manifest: dict[str, Any], rows: Sequence[Row], phases: Sequence[Phase], evaluation: Evaluation) -> None:
    """Write `images.csv` (which `--data` takes), `history.csv`, `metrics.json` and, last, `run.json` with the SHA-256 of all."""
    write_csv(folder / "images.csv", rows)
    write_csv(folder / "history.csv", [row for phase in phases for row in phase.epochs])
    write_json(folder / METRICS, evaluation.to_dict())
    seal(folder, manifest)


def save_predictions(folder: Path, predictions: Predictions, split: str, probabilities: np.ndarray) -> Path:
    """Write what a run answers for each image of a part: path, label, split, prediction, loss, and `p(class)` of each class. Returns the file."""
    said, classes, rows = probabilities.argmax(axis=1), predictions.classes, predictions.rows
    columns = {
        "path": pa.array([row.path.encode(errors="surrogateescape").decode(errors="replace") for row in rows]),
        "label": pa.array([row.label for row in rows]),
        "split": pa.array([split] * len(rows)),
        "prediction": pa.array([classes[i] for i in said]),
        "loss": pa.array(losses(probabilities, predictions.labels), pa.float32()),
        **{f"p({name})": pa.array(probabilities[:, i], pa.float32()) for i, name in enumerate(classes)},
    }
    path = folder / (PREDICTIONS if split == "valid" else f"predictions_{split}.parquet")
    parquet.write_table(pa.table(list(columns.values()), names=list(columns)), path)
    return path


def manifest(settings: Settings, classes: Sequence[str], stats: Stats, **facts: Any) -> dict[str, Any]:
    """Return what `run.json` says: everything needed to use the run and to repeat it."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": settings.to_dict(),
        "classes": list(classes),
        "mean": list(stats[0]),
        "std": list(stats[1]),
        "versions": package_versions(),
        **facts,
    }


def portrait(settings: Settings, classes: Sequence[str], run_id: str, weights: str, licence: str) -> dict[str, str]:
    """Return what an exported file says of itself, so that it needs nothing beside it."""
    chosen = {name: str(getattr(settings, name)) for name in ("task", "arch", "size", "crop_pct", "resize")}
    return {
        **chosen,
        "strategy": settings.tuning,
        "classes": json.dumps(list(classes)),
        "run": run_id,
        "weights": weights,
        "licence": licence,
        "tlfast": package_versions()["tlfast"],
    }


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


def open_learner(run: Run, trust: bool) -> Learner:
    """Open a run's fastai learner, which is a pickle: whatever code is in it runs. Raises UsageError unless it is trusted."""
    if not trust:
        raise UsageError(
            f"{run.folder / LEARNER} is a pickle: to open it is to run whatever code is in it",
            "Pass trust=True if the run comes from you or someone you trust; without backend= no pickle is opened",
        )
    return load_learner(run.folder / LEARNER)


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)
