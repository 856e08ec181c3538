"""The trainings of a comparison: each arm with each fold, seed and share of the images, in this process or by an engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product

from pyarrow import parquet

from ..core import OnEvent, Progress, Settings, ignore_event
from ..data import Task
from ..distributed import Engine, open_engine
from ..evaluation import Arm, Design
from ..evaluation.comparison import ArmPredictions, Outcome, merge_folds
from ..training import experiments
from ..training.experiments import Trial
from .elsewhere import check_arrival, run_elsewhere
from .tracked import TrackedComparison, track_trial


@dataclass(frozen=True)
class _Training:
    """One training of an arm: share of the training images, settings, and name for trackers, such as "partial-seed0-fold2-0.3"."""

    arm: Arm
    share: float
    settings: Settings
    name: str


def open_arms_engine(arms: Sequence[Arm], name: str, address: str, cpus: int) -> Engine:
    """Return the engine for the trainings of the arms; each training uses a GPU if an arm does. Arguments and errors are those of `open_engine`."""
    return open_engine(name, address, cpus, devices=[arm.settings.device for arm in arms])


def train_arms(
    task: Task, arms: Sequence[Arm], design: Design, classes: Sequence[str], tracked: TrackedComparison, engine: Engine
) -> dict[tuple[str, float], ArmPredictions]:
    """Run all trainings of the design that are not cached. Returns (name of an arm, share of the training split) -> its predictions."""
    on_event, trainings = tracked.tracking.on_event, list(_list_trainings(arms, design))
    trials = {} if engine.in_process else _train_elsewhere(engine, task, trainings, on_event)
    outcomes: dict[tuple[str, float], list[Outcome]] = {}
    for done, training in enumerate(trainings):
        if engine.in_process:
            on_event(Progress("comparing", done, len(trainings)))
        with track_trial(tracked, training.settings, training.name) as results:
            trial = trials.get(training.name) or _run_training(task, training, on_event)
            results.append(_read_outcome(trial, classes))
        outcomes.setdefault((training.arm.name, training.share), []).extend(results)
    on_event(Progress("comparing", len(trainings), len(trainings)))
    return {key: merge_folds(of_arm, design) for key, of_arm in outcomes.items()}


def _list_trainings(arms: Sequence[Arm], design: Design) -> Iterator[_Training]:
    for arm, share in product(arms, design.shares):
        for seed, fold in product(range(design.seeds), range(max(1, design.folds))):
            settings = experiments.place_on_fold(arm.settings, design.folds, fold)
            settings = replace(settings, seed=arm.settings.seed + seed, train_pct=share * settings.train_pct)
            place, part = ([f"fold{fold}"] if design.folds else []), ([f"{settings.train_pct:.3g}"] if len(design.shares) > 1 else [])
            yield _Training(arm, share, settings, "-".join([arm.name, f"seed{settings.seed}", *place, *part]))


def _train_elsewhere(engine: Engine, task: Task, trainings: Sequence[_Training], on_event: OnEvent) -> Mapping[str, Trial]:
    """Run the trainings as tasks of an engine; the results are in the cache, which all machines must share. Returns name of a training -> its result."""
    trials: dict[str, Trial] = {}
    on_event(Progress("comparing", 0, len(trainings)))
    with closing(run_elsewhere(engine, task, _run_quietly, trainings)) as results:
        for training, trial, machine in results:
            check_arrival(trial.predictions.is_file, machine)
            trials[training.name] = trial
            on_event(Progress("comparing", len(trials), len(trainings)))
    return trials


def _run_quietly(task: Task, training: _Training) -> Trial:
    return _run_training(task, training, ignore_event)


def _run_training(task: Task, training: _Training, on_event: OnEvent) -> Trial:
    return experiments.run_trial(task, training.settings, on_event, training.arm.neighbours)


def _read_outcome(trial: Trial, classes: Sequence[str]) -> Outcome:
    """Return labels and predictions for the valid split by a training."""
    table = parquet.read_table(trial.predictions, columns=["path", "label", "prediction"])
    index, paths = {label: i for i, label in enumerate(classes)}, table["path"].to_pylist()
    labels, predicted = (dict(zip(paths, (index[name] for name in table[column].to_pylist()), strict=True)) for column in ("label", "prediction"))
    return Outcome(labels, predicted, trial.seconds, trial.trained_on, trial.reused)
