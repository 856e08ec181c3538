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
from ..core.settings import Settings
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
from ..models.stages import split_at
from ..models.weights import hash_weights, read_licence
from ..training import planner, records
from ..training.lr_finder import find_rate
from ..training.phase import EPOCHS_KEY, PhasePlan
from ..training.plots import plot_rate_curve
from ..training.session import Session
from ..training.strategies.depth import UPPER, extract_lower_stages, open_upper_learner
from ..training.strategies.full import ALL_LAYERS, prepare_all_layers
from ..training.strategies.partial import fit_head
from ..training.trainer import fit, predict_valid, prepare
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
    with open_journal(settings.out, settings.task, run_id, {"settings": settings.to_dict()}, resume) as journal:
        try:
            with prepare(task, settings, on_event) as bench:
                return _train(bench, settings, on_event, journal, like)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; what was learned is in {journal.folder}", f"Go on with it: {_resume_command(settings, journal)}") from None


def _train(bench: Session, settings: Settings, on_event: OnEvent, journal: Journal, like: Mapping[str, Any]) -> TrainResult:
    facts = {
        "data": {"source": bench.table.source, "fingerprint": bench.table.fingerprint(), **_count_images(bench.table)},
        "weights": {"source": str(bench.weights), "sha256": hash_weights(bench.learn.model[0])},
        "device": str(bench.learn.dls.device),
    }
    for name, group, key in (("images", "data", "fingerprint"), ("weights", "weights", "sha256")):
        said = facts[group][key]
        if like and like[group][key] != said:
            on_event(Note("data", f"the {name} are not those of the run that is repeated: its figures will be others"))
        if journal.once(name, lambda value=said: value) != said:
            raise DataError(f"the {name} are not those that the interrupted training began with", "Put them back, or train anew without --resume")
    facts["asked"] = {"depth": settings.depth, "minutes": settings.minutes}
    settings, plan = planner.settle_depth(bench, settings, on_event, journal)
    phases, _ = fit(bench, settings, on_event, journal)
    settings = replace(settings, epochs=journal.facts.get(EPOCHS_KEY, settings.epochs))
    predictions = predict_valid(bench, settings, on_event)
    result = metrics.evaluate(predictions, "valid", seed=settings.seed)
    facts["phases"] = [{name: value for name, value in asdict(p).items() if name not in ("epochs", "curve")} for p in phases]
    facts["seconds"] = journal.seconds
    facts["plan"] = [asdict(choice) for choice in plan]
    folder, agreement = publish(bench, journal.run_id, settings, phases, (result, predictions), facts, on_event)
    about = settings.to_dict(), str(bench.weights), facts["device"], phases, result, bench.table.summary(), facts["seconds"]
    return TrainResult(folder.name, str(folder), *about, agreement, plan)


def _resume_command(settings: Settings, journal: Journal) -> str:
    """Return the command that goes on with an interrupted training."""
    out = settings.out if settings.out != Settings.out else None
    return tasks.train_command(settings.task, settings.data, settings.strategy, {"out": out, "resume": journal.run_id})


def plan_run(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> Plan:
    """Say what `train` would do with these settings: data, weights, model size. Writes nothing."""
    with prepare(task, settings, on_event) as bench:
        settings, choices = planner.settle_depth(bench, settings, on_event, Journal())
        body, head = bench.learn.model
        parts = {"partial": [head], "middle": [head], "full": [head, body]}[settings.strategy]
        if settings.strategy == "middle":
            parts.append(split_at(body, settings.arch, int(settings.depth), settings.size).upper)
        total, trained = (sum(p.numel() for part in those for p in part.parameters()) for those in ([body, head], parts))
        return Plan(settings.to_dict(), bench.table.summary(), str(bench.weights), str(bench.learn.dls.device), total, trained, choices)


def find_rates(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> dict[str, tuple[RateCurve, Path]]:
    """Run the learning-rate finder of each phase that the settings would train; draw its curve into `<out>/<task>/`.

    With all layers or the topmost stages the head is trained first, as it would be. Returns phase -> (curve, picture).
    """
    settings = replace(settings, lr="auto")  # a rate that was typed does not stop the search
    runs.check_writable(settings.out, settings.task, "")
    stamp, found = f"{datetime.now():%Y%m%d-%H%M%S}", {}
    with prepare(task, settings, on_event) as bench:
        settings, _ = planner.settle_depth(bench, settings, on_event, Journal())
        for name, curve in _find_curves(bench, settings, on_event).items():
            picture = Path(settings.out) / settings.task / f"lr-find-{stamp}-{name.replace(' ', '-')}.png"
            found[name] = (curve, plot_rate_curve(curve, picture, f"{settings.task}: learning-rate finder, {name}"))
    return found


def _find_curves(bench: Session, settings: Settings, on_event: OnEvent) -> dict[str, RateCurve]:
    if settings.strategy == "middle":
        parts, kept, first = extract_lower_stages(bench, settings, on_event, Journal(), None)
    else:
        first, _ = fit_head(bench, settings, on_event, Journal())
    curves = {first.name: first.curve} if first and first.curve else {}
    if settings.strategy == "middle":
        with open_upper_learner(bench, parts, kept, settings, Journal()) as (upper, _):
            curves[UPPER["name"]] = find_rate(upper, PhasePlan(epochs=settings.epochs, **UPPER), on_event)
    if settings.strategy == "full":
        with prepare_all_layers(bench, settings, Journal()):
            curves[ALL_LAYERS["name"]] = find_rate(bench.learn, PhasePlan(epochs=settings.epochs, **ALL_LAYERS), on_event)
    return curves


def publish(
    bench: Session, run_id: str, settings: Settings, phases: list[Phase], judged: tuple[Evaluation, Predictions], facts: dict, on_event: OnEvent
) -> tuple[Path, Agreement | None]:
    """Write the run folder; return it and how well its ONNX file agrees with the network.

    Raises ExportError where it does not, or cannot be written: the run is kept without it, for it may have taken hours.
    """
    agreement, failure = None, None
    result, predictions = judged
    temperature = result.calibration.temperature
    with runs.create_run(settings.out, settings.task, run_id) as (folder, published):
        save_model(folder, bench.learn.model, bench.table.classes, settings, bench.stats, temperature)
        try:
            agreement = _export_onnx(bench, folder / onnx_model.FILE, run_id, settings, temperature, on_event) if settings.onnx else None
        except ExportError as error:
            (folder / onnx_model.FILE).unlink(missing_ok=True)
            failure = error
        for phase in phases:
            if phase.curve:
                name = phase.name.replace(" ", "-")
                plot_rate_curve(phase.curve, folder / "plots" / f"lr-find-{name}.png", f"{settings.task}: learning-rate finder, {phase.name}")
                files.write_json(folder / "plots" / f"lr-find-{name}.json", asdict(phase.curve))
        plot_calibration(result, folder / "plots" / "calibration.png", f"{settings.task}: {run_id}")
        save_predictions(folder, predictions, "valid", calibration.apply_temperature(predictions.log_probabilities, temperature))
        facts |= {"onnx": asdict(agreement) if agreement else None, "temperature": temperature}
        manifest = records.build_manifest(settings, bench.table.classes, bench.stats, **facts)
        rows = [row for row in bench.table.rows if row.split in SPLITS]
        records.save_records(folder, manifest, rows, phases, result)
    if failure:
        raise ExportError(f"{failure.message}; all else of the run is in {published[0]}", failure.hint) from failure
    return published[0], agreement


def _export_onnx(bench: Session, path: Path, run_id: str, settings: Settings, temperature: float, on_event: OnEvent) -> Agreement:
    """Write `model.onnx` and compare it with the network on images of the valid part. Raises ExportError."""
    about = metadata.describe_model(settings, bench.table.classes, run_id, str(bench.weights), read_licence(bench.weights))
    onnx.export_onnx(path, bench.learn.model, settings, bench.stats, about, temperature)
    sources = [row.path for row in bench.table.part("valid")]
    spread = sources[:: math.ceil(len(sources) / onnx.CHECKED)]  # rows lie class by class
    return onnx.check_onnx(path, bench.learn.model, settings, bench.stats, spread, on_event, temperature)


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
        return asdict(self)
