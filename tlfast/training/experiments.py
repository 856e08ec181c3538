"""Cached trainings that keep predictions only, for `tlfast compare` and the search for label errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core import Journal, ModelSettings, OnEvent, RunError, Settings, UsageError, cache
from ..core.files import hash_file
from ..core.journal import SUFFIX, open_journal
from ..core.run_files import PREDICTIONS_FILE, name_split_file
from ..core.setting_fields import Role
from ..core.settings import names_with
from ..core.system import package_versions
from ..data import Task
from ..data.file_hashes import hash_files
from ..data.sources import open_data
from ..evaluation import Predictions, apply_temperature, save_predictions
from ..models import pretrained
from . import trainer
from .augment import resolve_augmentation
from .batch_size import use_default_batch
from .distillation import describe_teachers
from .feature_learner import predict_from_features
from .features import extract
from .neighbours import MIN_VOTE, NEIGHBOURS, VOTE_TEMPERATURE, predict_neighbours
from .session import Session
from .strategies import get_strategy
from .types import Phase

KIND = "trainings"
AVERAGED = "averaged"  # predictions averaged over all views of an image, where features have several
LAYOUT = 3  # increase it when the same training gives other predictions
# Settings without effect on predictions. Images, pretrained weights and teachers count by their contents. Trials run in one process.
UNIMPORTANT = (*names_with(Role.SPEED, Role.OUTPUT, Role.PLACE, Role.SHORTHAND), "gpus", "sync_bn")


@dataclass(frozen=True)
class Trial:
    """One training: files of its predictions for the valid split, plain and averaged over all views, and its cost.

    `seconds` include the forward passes of the frozen backbone, even if their features were cached; `trained_on` counts images; `reused` tells that the
    training itself was cached.
    """

    predictions: Path
    averaged: Path
    seconds: float
    trained_on: int
    reused: bool


def place_on_fold(settings: Settings, folds: int, fold: int) -> Settings:
    """Return the settings for fold `fold` of `folds`; with `folds` 0, for the usual split.

    Splits and augmented views then no longer depend on `seed`, which may vary between trainings.
    """
    internals = replace(settings.internals, base_seed=settings.split_seed)
    if folds:
        return replace(settings, fold=fold, internals=replace(internals, folds=folds))
    return replace(settings, internals=internals)


def run_trial(task: Task, settings: Settings, on_event: OnEvent, neighbours: bool = False) -> Trial:
    """Train and predict the valid split, or read the cached result for the same settings, images, weights and versions. Raises TlfastError.

    With `neighbours` nothing is trained: images are predicted by their nearest neighbours in the features of the backbone.
    """
    table = open_data(task, settings, on_event)
    important = {name: value for name, value in settings.to_dict().items() if name not in UNIMPORTANT}
    augmentation = resolve_augmentation(settings)
    important["augment"] = asdict(augmentation) if augmentation else None  # its numbers, not the name of a preset
    sources: dict[str, Any] = {"settings": important, "images": table.fingerprint(), "weights": _describe_weights(settings), "versions": package_versions()}
    sources["files"] = hash_files(sorted(row.path for row in table.rows))  # files of the same size may have other pixels
    if settings.teacher:
        sources["teacher"] = describe_teachers(settings)
    if neighbours:
        sources["neighbours"] = (NEIGHBOURS, VOTE_TEMPERATURE, MIN_VOTE)
    name = cache.make_key(layout=LAYOUT, **sources)
    reused = cache.find(KIND, name) is not None

    def train(folder: Path) -> dict[str, Any]:
        if neighbours:
            return _predict_by_neighbours(folder, task, settings, on_event)
        with _open_journal(name, settings) as journal:
            return _train_trial(folder, task, settings, journal, on_event)

    folder, about = cache.get_or_create(KIND, name, train)
    return Trial(folder / PREDICTIONS_FILE, folder / name_split_file(PREDICTIONS_FILE, AVERAGED), about["seconds"], about["trained_on"], reused)


def _describe_weights(settings: ModelSettings) -> str:
    """Return the SHA-256 of the file of pretrained weights, or where there is none "none" or "hub"."""
    weights = pretrained.find_weights(settings.arch, settings.weights)
    return hash_file(Path(weights.path)) if weights.path else weights.kind


@contextmanager
def _open_journal(name: str, settings: Settings) -> Iterator[Journal]:
    """Yield the journal of a trial, which continues after an interruption. It is in memory if another process trains the same.

    Its folder in the cache is listed and removed as an unfinished entry.
    """
    root, run_id = cache.find_root(), f".{name}"
    resumed = run_id if (root / KIND / f"{run_id}{SUFFIX}").exists() else ""
    with ExitStack() as stack:
        try:
            journal = stack.enter_context(open_journal(str(root), KIND, run_id, settings.to_dict(), resumed))
        except (RunError, UsageError):  # locked by another process, or damaged
            journal = Journal()
        yield journal


def _train_trial(folder: Path, task: Task, settings: Settings, journal: Journal, on_event: OnEvent) -> dict[str, Any]:
    """Train, and write the predictions for the valid split; return the cost."""
    with trainer.prepare(task, settings, on_event, journal) as session:
        started = time.perf_counter()
        settings, _ = get_strategy(settings.strategy).resolve(session, settings)
        phases, features = trainer.fit(session, settings)
        seconds = journal.earlier_seconds + time.perf_counter() - started + _cached_seconds(phases)
        rows, classes, head = session.table.part("valid"), session.table.classes, session.learn.model[1]
        # Features of a frozen backbone give the same predictions as the images, without another pass.
        plain = trainer.predict_valid(session, settings, features)
        averaged = predict_from_features(features.valid_views, head, rows, classes) if features else plain
        return _save_trial(folder, session, plain, averaged, seconds)


def _predict_by_neighbours(folder: Path, task: Task, settings: Settings, on_event: OnEvent) -> dict[str, Any]:
    """Write predictions for the valid split by nearest neighbours; return the cost."""
    with trainer.prepare(task, settings, on_event) as session:
        started = time.perf_counter()
        features = extract(session.learn.model[0], session, replace(use_default_batch(settings), views=1))
        predictions = predict_neighbours(features, session.table.part("valid"), session.table.classes)
        seconds = time.perf_counter() - started + features.cost.kept_seconds
        return _save_trial(folder, session, predictions, predictions, seconds)


def _save_trial(folder: Path, session: Session, plain: Predictions, averaged: Predictions, seconds: float) -> dict[str, Any]:
    for predictions, split in ((plain, "valid"), (averaged, AVERAGED)):
        save_predictions(folder, predictions, split, apply_temperature(predictions.log_probabilities, 1.0))
    return {"seconds": seconds, "trained_on": len(session.table.part("train"))}


def _cached_seconds(phases: Sequence[Phase]) -> float:
    return sum(phase.features.kept_seconds for phase in phases if phase.features)
