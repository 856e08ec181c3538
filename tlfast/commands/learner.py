"""Plain fastai Learners from a task or a run, and a run from a Learner that was fitted by hand. The command line has no command for them."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from fastai.learner import Learner
from torch import nn

from .. import tasks
from ..core import DataSettings, Note, OnEvent, RunRecord, RunSettings, Settings, TrainingError, TrainingSettings, UsageError, ignore_event, runs
from ..core.errors import first_line
from ..core.journal import check_name_free, open_journal
from ..core.setting_checks import AUTO_DEPTH
from ..core.setting_values import check_value
from ..core.settings import declared_settings, find_unused
from ..data import ImageTable, Task
from ..data.hub import is_hub_dataset
from ..evaluation import Predictions, evaluate
from ..models import pretrained
from ..tasks import resolve_settings
from ..training import Phase, Session, get_strategy, predict_valid, prepare
from ..training.batch_size import use_default_batch
from ..training.callbacks import KeepBatchNorm, KeepHistory, ShareCores
from ..training.learner import build_learner, compute_class_weights
from ..training.processes import require_single
from ..training.recording import record_on_host
from ..training.types import EPOCH_VALUES, EpochRow
from .loaded_run import load_run
from .train import describe_origin, describe_phase, publish

PHASE = f"fitted {runs.BY_HAND}"
ATTRIBUTE, SPLITS = "tlfast_settings", "tlfast_splits"  # of a Learner: the settings and the splits that it was built with
# Settings of TrainingSettings and RunSettings that a Learner of a user has; all others of the two describe a training of tlfast.
USED = frozenset({"depth", "bs", "class_weights", "label_smoothing", "amp", "seed", "onnx", "device", "out", "name"})
NOT_USED = tuple(f.name for f in fields(TrainingSettings) + fields(RunSettings) if f.name not in USED)


def open_learner(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> Learner:
    """Return the Learner that `train` starts from, untrained: images, augmentation, backbone with pretrained weights, head, metrics.

    All layers are trainable; `learn.freeze()` freezes the backbone. A note names the given settings that it does not use. Raises TlfastError.
    """
    require_single(settings, "a Learner")
    if settings.teacher:
        raise UsageError("--teacher is not supported by a Learner of your own", "Leave out --teacher, or train with tlfast.train")
    if settings.depth == AUTO_DEPTH:
        raise UsageError(
            "--depth auto and --minutes choose the layers at the start of a training, and a Learner of your own trains those that you choose",
            "Give --full or --depth 0, without --minutes and --preset",
        )
    own = _task_settings(task, settings, settings.preset)
    if unused := [name for name in find_unused(settings, NOT_USED) if name == "preset" or getattr(settings, name) != getattr(own, name)]:
        on_event(Note("settings", f"without effect on a Learner: {', '.join(unused)}"))
    settings = use_default_batch(settings)
    with prepare(task, settings, on_event) as session:
        return _prepare_for_user(session.learn, settings, session.table)


def open_run_learner(run: RunRecord, data: str = "", device: str = "auto", on_event: OnEvent = ignore_event) -> Learner:
    """Return a Learner with the weights and the images of a run. `data` names the images if they have moved. Raises TlfastError.

    If the head of the run was trained on a frozen backbone, BatchNorm keeps its statistics; see `KeepBatchNorm`.
    """
    loaded = load_run(run, data, device, on_event)
    weights = compute_class_weights(loaded.table, loaded.settings, loaded.dls.device)
    learn = build_learner(loaded.dls, loaded.settings, pretrained.Weights("none", loaded.settings.arch), weights)
    learn.model.load_state_dict(loaded.network.state_dict())
    if loaded.settings.depth != AUTO_DEPTH and not _trains_body(learn.model, loaded.settings):  # not chosen in runs by hand of earlier versions
        learn.add_cb(KeepBatchNorm())
    source = data or run.manifest["data"]["source"]
    source = source if is_hub_dataset(source) else os.path.abspath(os.path.expanduser(source))
    return _prepare_for_user(learn, replace(loaded.settings, data=source, name=""), loaded.table)


def _task_settings(task: Task, settings: Settings, preset: str = Settings.preset) -> Settings:
    """Return the settings of a task and a preset for the same layers, without given ones."""
    return resolve_settings(task, None, {"depth": settings.depth}, {"preset": preset})


def _trains_body(model: nn.Sequential, settings: Settings) -> bool:
    """Return whether a training with these settings trains all layers of the body."""
    return any(layer is model[0] for layer in get_strategy(settings.strategy).trainable(model, settings))


def _prepare_for_user(learn: Learner, settings: Settings, table: ImageTable) -> Learner:
    learn.path = Path()  # as for any fastai Learner; that of a training is a temporary folder
    learn.add_cbs([ShareCores(), KeepHistory()])
    setattr(learn, ATTRIBUTE, settings)
    setattr(learn, SPLITS, {os.path.abspath(row.path): row.split for row in table.rows})
    return record_on_host(learn)


def publish_learner(learn: Learner, task: Task | None = None, data: Settings | None = None, name: str = "", on_event: OnEvent = ignore_event) -> Path:
    """Evaluate a Learner on the valid split and export it as a run, with its present weights. Returns the folder of the run.

    The Learner must come from `open_learner` or `open_run_learner`. Without `task` and `data`, the images that it was built with are used, otherwise
    those of the task that `data` describes. `name` is that of the run, by default the one that the Learner was built with. Raises UsageError for another
    Learner, TrainingError if it predicts NaN, or TlfastError.
    """
    built = settings_of(learn)
    images = data or built
    task = task or tasks.find_named_task(built.task, built.data)
    own, name = _task_settings(task, built), check_value("name", name or built.name, declared_settings())
    kept = {f.name: getattr(images, f.name) for f in fields(DataSettings)} | {unused: getattr(own, unused) for unused in NOT_USED}
    settings = replace(built, **kept, task=task.name, out=images.out, name=name)
    runs.check_writable(settings.out, settings.task, name)
    check_name_free(settings.out, settings.task, name)
    run_id = name or runs.new_id(runs.BY_HAND, settings.arch)
    reserved = open_journal(settings.out, settings.task, run_id, settings.to_dict(), resumable=False)
    known = {} if data else getattr(learn, SPLITS, {})  # images may have been added since
    with reserved as journal, prepare(task, settings, on_event, journal, known=known) as session:
        facts = {**describe_origin(task, session), "by_hand": True, "device": str(session.learn.dls.device)}  # with the initial weights
        _check_classes(learn, session)
        _copy_weights(learn.model, session)
        phases = _list_phases(learn)
        facts |= {"phases": list(map(describe_phase, phases)), "seconds": 0.0}
        predictions = predict_valid(session, settings)
        _check_finite(predictions)
        evaluation = evaluate(predictions, "valid", seed=settings.seed, on_event=on_event)
        return publish(session, settings, phases, evaluation, predictions, facts)[0]


def settings_of(learn: Learner) -> Settings:
    """Return the settings that a Learner was built with. Raises UsageError for a Learner of another origin."""
    built: Settings | None = getattr(learn, ATTRIBUTE, None)
    if built is None:
        raise UsageError("this Learner was not built by tlfast, so its preprocessing is unknown", "Build it with tlfast.learner(data) or run.learner()")
    return built


def _check_classes(learn: Learner, session: Session) -> None:
    """Raise UsageError if a Learner was given loaders with other classes, or another order of them, than the images of the run have."""
    classes = list(session.table.classes)
    if (found := list(getattr(learn.dls, "vocab", classes))) != classes:
        problem = f"the loaders of the Learner have the classes {found!s:.200}, and the images of the run {classes!s:.200}"
        raise UsageError(problem, "Give the images that the Learner was fitted on: Run.from_learner(learn, data)")


def _check_finite(predictions: Predictions) -> None:
    """Raise TrainingError if a network predicts NaN."""
    if np.isnan(predictions.log_probabilities).any():
        raise TrainingError("the Learner predicts NaN: its fit has diverged", "Build a new Learner, and fit it at a lower rate")


def _copy_weights(model: nn.Module, session: Session) -> None:
    """Copy the weights of a Learner into the model of a session. Raises UsageError if layers or classes differ."""
    try:
        session.learn.model.load_state_dict(model.state_dict())
    except RuntimeError as error:
        problem = f"the layers of the Learner differ from those of its backbone and head: {first_line(error)}"
        raise UsageError(problem, "Keep the architecture, or export with learn.export(); the data must have the same classes") from None


def _list_phases(learn: Learner) -> list[Phase]:
    """Return the last fit of a Learner as a phase, with its epochs; none if it was not fitted, or with other metrics."""
    history: KeepHistory | None = getattr(learn, KeepHistory().name, None)
    if not history or not history.values or any(len(row) != len(EPOCH_VALUES) for row in history.values):
        return []
    rows = [EpochRow(PHASE, i, **dict(zip(EPOCH_VALUES, map(float, row), strict=True))) for i, row in enumerate(history.values, start=1)]
    rate = max(history.rates)  # of the head
    lowest, *_, highest = history.last_rates  # a schedule scales all groups alike
    return [Phase(PHASE, rate, rate * lowest / highest if highest else rate, rows, len(rows), 0.0, 0.0)]
