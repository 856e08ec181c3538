"""Trainings of which only the answers are kept: those of a comparison, or of a search for wrong labels. None is done twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core import cache
from ..core.events import OnEvent
from ..core.settings import Settings
from ..core.system import package_versions
from ..data import load_table
from ..data.sources import locate
from ..data.task import Task
from ..evaluation.calibration import apply_temperature
from ..evaluation.predictions import PREDICTIONS, save_predictions
from ..models import pretrained
from . import trainer
from .head import predict_from_features
from .strategies import get_strategy
from .types import Phase

KIND = "trainings"
AVERAGED = "averaged"  # answers over all views of an image, for those who want the best answer and not the model's own
LAYOUT = 2  # to be raised when the same training would give other answers
UNIMPORTANT = ("out", "name", "data", "store", "workers", "onnx", "checkpoint_minutes")  # settings that change nothing of what is predicted


@dataclass(frozen=True)
class Trial:
    """A training that was done: files of what it answers for its valid part (plain, and over all views), its cost, and whether it was found.

    `seconds` are those of the training, the frozen backbone's pass counted even where it was kept from before; `trained_on` counts images.
    """

    predictions: Path
    averaged: Path
    seconds: float
    trained_on: int
    reused: bool


def place_on_fold(settings: Settings, folds: int, fold: int) -> Settings:
    """Return settings for one of some folds (0: the usual split); splits and augmented views stay the same whatever the seed of a training."""
    internals = replace(settings.internals, base_seed=settings.split_seed)
    if folds:
        return replace(settings, fold=fold, internals=replace(internals, folds=folds))
    return replace(settings, internals=internals)


def run_trial(task: Task, settings: Settings, on_event: OnEvent) -> Trial:
    """Train and judge, or find what a training with the same settings, images, weights and versions answered. Raises TlfastError."""
    table = load_table(task, settings, locate(task, settings.data))
    important = {name: value for name, value in settings.to_dict().items() if name not in UNIMPORTANT}
    made_from = {"settings": important, "images": table.fingerprint(), "weights": _describe_weights(settings), "versions": package_versions()}
    name = cache.make_key(layout=LAYOUT, **made_from)
    reused = cache.find(KIND, name) is not None
    folder, about = cache.get_or_create(KIND, name, lambda folder: _train_trial(folder, task, settings, on_event))
    return Trial(folder / PREDICTIONS, folder / f"predictions_{AVERAGED}.parquet", about["seconds"], about["trained_on"], reused)


def _describe_weights(settings: Settings) -> list[Any]:
    found = pretrained.find_weights(settings.arch, settings.weights)
    stat = Path(found.path).stat() if found.path else None
    return [found.kind, found.path, *((stat.st_size, stat.st_mtime_ns) if stat else ())]


def _train_trial(folder: Path, task: Task, settings: Settings, on_event: OnEvent) -> dict[str, Any]:
    """Train, and write what is predicted for the valid part; return what it cost."""
    with trainer.prepare(task, settings, on_event) as session:
        started = time.perf_counter()
        settings, _ = get_strategy(settings.strategy).resolve(session, settings)
        phases, features = trainer.fit(session, settings)
        seconds = time.perf_counter() - started + _cached_seconds(phases)
        rows, classes, head = session.table.part("valid"), session.table.classes, session.learn.model[1]
        # With a frozen backbone, its features give the same predictions as the images, at once.
        found = predict_from_features(features.valid, head, rows, classes) if features else trainer.predict_valid(session, settings)
        save_predictions(folder, found, "valid", apply_temperature(found.log_probabilities, 1.0))
        averaged = predict_from_features(features.varied, head, rows, classes) if features else found
        save_predictions(folder, averaged, AVERAGED, apply_temperature(averaged.log_probabilities, 1.0))
        return {"seconds": seconds, "trained_on": len(session.table.part("train"))}


def _cached_seconds(phases: Sequence[Phase]) -> float:
    return sum(phase.features.kept_seconds for phase in phases if phase.features)
