"""Plain fastai Learners from a task or a run, and a run from a Learner that was fitted by hand. The command line has no command for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from .. import tasks
from ..core import DataSettings, OnEvent, Run, Settings, UsageError, ignore_event, runs
from ..core.errors import first_line
from ..core.journal import open_journal
from ..data import Task
from ..evaluation import evaluate
from ..models import pretrained
from ..training import Phase, Session, predict_valid, prepare
from ..training.learner import build_learner
from ..training.types import EPOCH_VALUES, EpochRow
from .loaded_run import load_run
from .train import TrainResult, describe_origin, describe_phase, publish

PHASE = "fitted by hand"
ATTRIBUTE = "tlfast_settings"  # of a Learner: the settings that it was built with


def open_learner(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> Learner:
    """Return the Learner that `train` starts from, untrained: images, augmentation, backbone with pretrained weights, head, metrics.

    All layers are trainable; `learn.freeze()` freezes the backbone. Raises TlfastError.
    """
    with prepare(task, settings, on_event) as session:
        return _hand_out(session.learn, settings)


def open_run_learner(run: Run, data: str = "", device: str = "auto", on_event: OnEvent = ignore_event) -> Learner:
    """Return a Learner with the weights and the images of a run. `data` names the images if they have moved. Raises TlfastError."""
    loaded = load_run(run, data, device, on_event)
    return _hand_out(_wrap_model(loaded.dls, loaded.network, loaded.settings), loaded.settings)


def _wrap_model(dls: DataLoaders, model: nn.Module, settings: Settings) -> Learner:
    learn = build_learner(dls, settings, pretrained.Weights("none", settings.arch))
    learn.model.load_state_dict(model.state_dict())
    return learn


def _hand_out(learn: Learner, settings: Settings) -> Learner:
    learn.path = Path()  # as for any fastai Learner; that of a training is a temporary folder
    setattr(learn, ATTRIBUTE, settings)
    return learn


def publish_learner(learn: Learner, task: Task | None = None, data: Settings | None = None, on_event: OnEvent = ignore_event) -> TrainResult:
    """Evaluate a Learner on the valid split and export it as a run. Its weights are those of the last step.

    The Learner must come from `open_learner` or `open_run_learner`. `task` and `data` name the images, by its settings for them; None for those of the
    Learner. Raises UsageError for another Learner, or TlfastError.
    """
    built: Settings | None = getattr(learn, ATTRIBUTE, None)
    if built is None:
        raise UsageError("this Learner was not built by tlfast, so its preprocessing is unknown", "Build it with tlfast.learner(data) or run.learner()")
    images = data or built
    task = task or tasks.find_named_task(built.task, built.data)
    kept = {f.name: getattr(images, f.name) for f in fields(DataSettings)}
    settings = replace(built, **kept, task=task.name, out=images.out, name="")
    runs.check_writable(settings.out, settings.task, "")
    run_id = runs.new_id("by hand", settings.arch)
    with open_journal(settings.out, settings.task, run_id, settings.to_dict()) as journal, prepare(task, settings, on_event, journal) as session:
        origin = describe_origin(session)  # before the weights are replaced
        _copy_weights(learn.model, session)
        phases = _list_phases(learn)
        predictions = predict_valid(session, settings)
        evaluation = evaluate(predictions, "valid", seed=settings.seed)
        facts: dict[str, Any] = {
            **({"task_file": task.file} if task.file else {}),
            **origin,
            "by_hand": True,
            "device": str(session.learn.dls.device),
            "phases": list(map(describe_phase, phases)),
            "seconds": sum(phase.seconds for phase in phases),
        }
        folder, agreement = publish(session, settings, phases, evaluation, predictions, facts)
        return TrainResult(
            run=folder.name,
            folder=str(folder),
            settings=settings.to_dict(),
            weights=str(session.weights),
            device=facts["device"],
            phases=phases,
            evaluation=evaluation,
            data=session.table.summary(),
            seconds=facts["seconds"],
            onnx=agreement,
        )


def _copy_weights(model: nn.Module, session: Session) -> None:
    """Copy the weights of a Learner into the model of a session. Raises UsageError if layers or classes differ."""
    try:
        session.learn.model.load_state_dict(model.state_dict())
    except RuntimeError as error:
        problem = f"the layers of the Learner differ from those of its backbone and head: {first_line(error)}"
        raise UsageError(problem, "Keep the architecture, or export with learn.export(); the data must have the same classes") from None


def _list_phases(learn: Learner) -> list[Phase]:
    """Return the last fit of a Learner as a phase, with its epochs; none if it was not fitted, or with other metrics."""
    values: Sequence[Sequence[float]] = getattr(learn.recorder, "values", [])
    if not values or any(len(row) != len(EPOCH_VALUES) for row in values):
        return []
    rows = [EpochRow(PHASE, i, **dict(zip(EPOCH_VALUES, map(float, row), strict=True))) for i, row in enumerate(values, start=1)]
    rates = [max(learn.recorder.lrs), *(float(group["lr"]) for group in learn.opt.hypers)]
    return [Phase(PHASE, max(rates), min(rates), rows, len(rows), 0.0, 0.0)]
