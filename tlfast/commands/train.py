"""`tlfast train`: from a task and settings to an evaluated, exported run. Also its plan (`--dry-run`) and `tlfast lr-find`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .. import tasks
from ..core import files, runs
from ..core.errors import DataError, ExportError, Interrupted
from ..core.events import Note, OnEvent, ignore_event
from ..core.journal import Journal, check_free, list_interrupted, open_journal, run_id_of
from ..core.settings import DEPTH_ENDS, Settings
from ..data import ImageTable
from ..data.split import SPLITS
from ..data.task import Task
from ..data.types import DataSummary
from ..evaluation import calibration, metrics
from ..evaluation.plots import plot_calibration
from ..evaluation.predictions import save_predictions
from ..evaluation.types import Evaluation, Predictions
from ..export import metadata, onnx
from ..export.types import Agreement
from ..export.weights import save_model
from ..inference import onnx_model
from ..models.weights import hash_weights, read_licence
from ..training import records
from ..training.phase import search_rate
from ..training.plots import plot_rate_curve
from ..training.session import Session
from ..training.strategies import get_strategy
from ..training.trainer import fit, fit_within_memory, predict_valid, prepare
from ..training.types import DepthPlan, Phase, RateCurve


def train_run(
    task: Task, settings: Settings, on_event: OnEvent = ignore_event, resume: str = "", like: Mapping[str, Any] = MappingProxyType({})
) -> TrainResult:
    """Train, evaluate and export.

    `resume` names an interrupted training to go on with, whose settings these are; `like` is the manifest of a run that is repeated.
    Raises TlfastError, Interrupted among them; the run folder is whole or absent.
    """
    runs.check_writable(settings.out, settings.task, "" if resume else settings.name)
    if not resume:
        check_free(settings.out, settings.task, settings.name)
        for left in map(run_id_of, list_interrupted(settings.out, settings.task)):
            on_event(Note("training", f"{left} was interrupted: --resume {left} goes on with it, this is a new one"))
    run_id = settings.name or runs.new_id(settings.tuning, settings.arch)
    with open_journal(settings.out, settings.task, run_id, settings.to_dict(), resume) as journal:
        try:
            with prepare(task, settings, on_event, journal) as session:
                return _train(session, settings, like)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; what was learned is in {journal.folder}", f"Go on with it: {_resume_command(settings, journal)}") from None


def _train(session: Session, settings: Settings, like: Mapping[str, Any]) -> TrainResult:
    journal, device = session.journal, str(session.learn.dls.device)
    facts: dict[str, Any] = {**_check_origin(session, like), "device": device, "asked": {"depth": settings.to_dict()["depth"], "minutes": settings.minutes}}
    settings, plans = get_strategy(settings.strategy).resolve(session, settings)
    phases, _ = fit(session, settings)
    settings = replace(settings, epochs=journal.facts.epochs or settings.epochs)
    predictions = predict_valid(session, settings)
    result = metrics.evaluate(predictions, "valid", seed=settings.seed)
    facts["phases"] = [{name: value for name, value in asdict(p).items() if name not in ("epochs", "curve")} for p in phases]
    facts["seconds"] = journal.seconds
    facts["plan"] = [asdict(choice) for choice in plans]
    folder, agreement = publish(session, settings, phases, result, predictions, facts)
    return TrainResult(
        run=folder.name,
        folder=str(folder),
        settings=settings.to_dict(),
        weights=str(session.weights),
        device=device,
        phases=phases,
        evaluation=result,
        data=session.table.summary(),
        seconds=facts["seconds"],
        onnx=agreement,
        plan=plans,
    )


def _check_origin(session: Session, like: Mapping[str, Any]) -> dict[str, Any]:
    """Describe images and weights. Raises DataError if they differ from those of the interrupted training; notes a difference from the run `like`."""
    facts: dict[str, Any] = {
        "data": {"source": session.table.source, "fingerprint": session.table.fingerprint(), **_count_images(session.table)},
        "weights": {"source": str(session.weights), "sha256": hash_weights(session.learn.model[0])},
    }
    for name, group, key in (("images", "data", "fingerprint"), ("weights", "weights", "sha256")):
        found = facts[group][key]
        if like and like[group][key] != found:
            session.on_event(Note("data", f"the {name} are not those of the run that is repeated: its figures will be others"))
        if session.journal.once(name, lambda value=found: value) != found:  # type: ignore[misc]
            raise DataError(f"the {name} are not those that the interrupted training began with", "Put them back, or train anew without --resume")
    return facts


def _resume_command(settings: Settings, journal: Journal) -> str:
    """Return the command that resumes an interrupted training."""
    out = settings.out if settings.out != Settings.out else None
    ends = settings.depth if settings.strategy in DEPTH_ENDS.values() else None
    return tasks.train_command(settings.task, settings.data, {"depth": ends, "out": out, "resume": journal.run_id})


def plan_run(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> Plan:
    """Describe what `train` would do: data, weights, model size, depths to choose from. Writes nothing."""
    with prepare(task, settings, on_event) as session:
        settings, plans = get_strategy(settings.strategy).resolve(session, settings)
        model = session.learn.model
        trainable = get_strategy(settings.strategy).trainable(model, settings)
        total, trained = (sum(p.numel() for part in parts for p in part.parameters()) for parts in ([model], trainable))
        return Plan(settings.to_dict(), session.table.summary(), str(session.weights), str(session.learn.dls.device), total, trained, plans)


def find_rates(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> dict[str, tuple[RateCurve, Path]]:
    """Run the learning-rate finder of each phase and draw its curve into `<out>/<task>/`.

    Every phase but the last is trained first, as `train` does it. Returns phase -> (curve, picture).
    """
    settings = replace(settings, lr="auto")  # a given rate does not stop the search
    runs.check_writable(settings.out, settings.task, "")
    stamp, found = f"{datetime.now():%Y%m%d-%H%M%S}", {}
    with prepare(task, settings, on_event) as session:
        settings, _ = get_strategy(settings.strategy).resolve(session, settings)
        for name, curve in _find_curves(session, settings).items():
            picture = Path(settings.out) / settings.task / f"lr-find-{stamp}-{name.replace(' ', '-')}.png"
            found[name] = (curve, plot_rate_curve(curve, picture, f"{settings.task}: learning-rate finder, {name}"))
    return found


def _find_curves(session: Session, settings: Settings) -> dict[str, RateCurve]:
    curves, before = {}, None
    plans = list(get_strategy(settings.strategy).phases(session, settings))
    for plan in plans:
        if plan is plans[-1]:
            with plan.open(settings) as opened:
                curves[plan.name] = search_rate(session, plan, opened, settings)
        else:
            before, _ = fit_within_memory(session, plan, settings, before)
            if before.curve:
                curves[plan.name] = before.curve
    return curves


def publish(
    session: Session, settings: Settings, phases: list[Phase], result: Evaluation, predictions: Predictions, facts: dict[str, Any]
) -> tuple[Path, Agreement | None]:
    """Write the run folder; return it and the agreement of its ONNX file with the network.

    Raises ExportError if the file does not agree or cannot be written: the run is kept without it, because it may have taken hours.
    """
    agreement, failure = None, None
    temperature, run_id = result.calibration.temperature, session.journal.run_id
    with runs.create_run(settings.out, settings.task, run_id) as (folder, published):
        save_model(folder, session.learn.model, session.table.classes, settings.arch, session.preprocessing, temperature)
        try:
            agreement = _export_onnx(session, folder / onnx_model.FILE, settings, temperature) if settings.onnx else None
        except ExportError as error:
            (folder / onnx_model.FILE).unlink(missing_ok=True)
            failure = error
        _write_plots(folder / "plots", f"{settings.task}: ", run_id, phases, result)
        save_predictions(folder, predictions, "valid", calibration.apply_temperature(predictions.log_probabilities, temperature))
        facts |= {"onnx": asdict(agreement) if agreement else None, "temperature": temperature}
        manifest = records.build_manifest(settings, session.table.classes, session.preprocessing, **facts)
        rows = [row for row in session.table.rows if row.split in SPLITS]
        records.save_records(folder, manifest, rows, phases, result)
    if failure:
        raise ExportError(f"{failure.message}; all else of the run is in {published[0]}", failure.hint) from failure
    return published[0], agreement


def _write_plots(folder: Path, prefix: str, run_id: str, phases: list[Phase], result: Evaluation) -> None:
    for phase in phases:
        if phase.curve:
            name = f"lr-find-{phase.name.replace(' ', '-')}"
            plot_rate_curve(phase.curve, folder / f"{name}.png", f"{prefix}learning-rate finder, {phase.name}")
            files.write_json(folder / f"{name}.json", asdict(phase.curve))
    plot_calibration(result, folder / "calibration.png", f"{prefix}{run_id}")


def _export_onnx(session: Session, path: Path, settings: Settings, temperature: float) -> Agreement:
    """Write `model.onnx` and compare it with the network on images of the valid split. Raises ExportError."""
    about = metadata.describe_model(settings, session.table.classes, session.journal.run_id, str(session.weights), read_licence(session.weights))
    onnx.export_onnx(path, session.learn.model, session.preprocessing, about, temperature)
    sources = [row.path for row in session.table.part("valid")]
    spread = sources[:: math.ceil(len(sources) / onnx.CHECKED)]  # rows are sorted by class
    return onnx.check_onnx(path, session.learn.model, session.preprocessing, spread, session.on_event, temperature)


def _count_images(table: ImageTable) -> dict:
    summary = table.summary()
    return {"counts": summary.counts, "unreadable": [asdict(bad) for bad in summary.unreadable], "notes": summary.notes}


@dataclass(frozen=True)
class Plan:
    """What a training would do: shown by `--dry-run`."""

    settings: dict[str, Any]
    data: DataSummary
    weights: str
    device: str
    parameters: int
    trained_parameters: int
    depths: list[DepthPlan] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its folder, what it was and how good it is."""

    run: str
    folder: str
    settings: dict[str, Any]
    weights: str
    device: str
    phases: list[Phase]
    evaluation: Evaluation
    data: DataSummary
    seconds: float
    onnx: Agreement | None = None
    plan: list[DepthPlan] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "evaluation": self.evaluation.to_dict()}
