"""`tlfast train`: from a task and settings to an evaluated and exported run. Also its plan, for `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastai.callback.core import Callback
from torch import nn

from ..core import DataError, ExportError, Interrupted, Journal, Note, OnEvent, Settings, files, ignore_event, runs
from ..core.errors import list_some
from ..core.journal import TASK_FILE, check_name_free, list_interrupted_folders, list_states, open_journal, read_facts, read_journal, run_id_of
from ..core.presets import PRESETS
from ..core.run_files import CALIBRATION_PLOT, ONNX_FILE, PLOTS
from ..core.settings import check_conflicts, find_unused
from ..data import DataSummary, Task
from ..data.split import drop_spare
from ..evaluation import Evaluation, Predictions, calibration, evaluate, save_predictions
from ..evaluation.plots import plot_calibration
from ..export import Agreement, metadata, onnx, save_model
from ..models import hash_weights, read_licence
from ..training import DepthPlan, Phase, Session, checkpoints, fit, get_strategy, planner, predict_valid, prepare, processes, records
from ..training.distillation import resolve_teachers
from ..training.plots import plot_rate_curve
from ..training.trackers import Tracking, open_tracking, parse_names
from .interrupted import read_interrupted, resume_command
from .setting_notes import note_unused
from .tracked import start_tracking, track_results

MODEL_COPIES = 5  # of the weights: model.safetensors, learner.pkl, model.onnx and two saved phases
CHECKPOINT_COPIES = 8  # of the trained weights: a checkpoint has those of now, of the kept epoch, and two averages of Adam; the next one is written beside it


@dataclass(frozen=True)
class TrainResult:
    """Result of `tlfast train`.

    Attributes:
        run: id of the run.
        folder: folder of the run.
        settings: settings as they were used, with the depth and the number of epochs resolved.
        weights: description of the pretrained weights.
        device: name of the device.
        phases: phases of the training, with their epochs.
        evaluation: metrics on the valid split.
        data: summary of the images.
        seconds: duration of the training, with the time before an interruption.
        onnx: agreement of `model.onnx` with the network; None with `--no-onnx`.
        plan: depths that were chosen from, or the forecast of a long preset; empty without `--depth auto`, `--minutes` and `--preset best`.
    """

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
        """Return all values as JSON types."""
        return {**asdict(replace(self, evaluation=self.evaluation.without_confusion())), "evaluation": self.evaluation.to_dict()}


@dataclass(frozen=True)
class DryRun:
    """Result of `tlfast train --dry-run`.

    Attributes:
        settings: settings that a training would use.
        data: summary of the images.
        weights: description of the pretrained weights.
        device: name of the device.
        parameters: number of parameters of the network.
        trained_parameters: number of parameters that would be trained.
        depths: depths to choose from, or the forecast of a long preset; empty without `--depth auto`, `--minutes` and `--preset best`.
    """

    settings: dict[str, Any]
    data: DataSummary
    weights: str
    device: str
    parameters: int
    trained_parameters: int
    depths: list[DepthPlan] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


# Training


def train_run(
    task: Task,
    settings: Settings,
    on_event: OnEvent = ignore_event,
    resume: str = "",
    like: Mapping[str, Any] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train, evaluate and export. The run folder is complete or absent.

    `resume` is the id of an interrupted training with these settings. `like` is the manifest of a run to repeat: a note tells if images or
    weights differ from its own. `callbacks` are fastai callbacks for every phase. Raises TlfastError, for Ctrl-C its subclass Interrupted.

    If torchrun has started several processes, all call this function, train together and return the result; the first one writes the files.
    """
    with processes.join(settings) as count:
        if count == 1:
            return _train_alone(task, settings, on_event, resume, like, callbacks)
        settings = replace(settings, gpus=count)
        check_conflicts(settings)
        if processes.rank():
            return _assist(task, settings, callbacks)
        return processes.broadcast_last(_train_alone(task, settings, on_event, resume, like, callbacks))


def check_start(settings: Settings, resume: str) -> None:
    """Check folder and name of the run, and the trackers, before any work. Raises RunError or UsageError."""
    runs.check_writable(settings.out, settings.task, "" if resume else settings.name)
    if not resume:
        check_name_free(settings.out, settings.task, settings.name)
    parse_names(settings.log)


def _train_alone(task: Task, settings: Settings, on_event: OnEvent, resume: str, like: Mapping[str, Any], callbacks: Sequence[Callback]) -> TrainResult:
    """Do the work of `train_run` that only one process does; the phases of the backbone together with the others."""
    check_start(settings, resume)
    if not resume:
        settings = resolve_teachers(settings)
        note_unused(find_unused(settings), on_event)
        for interrupted in map(run_id_of, list_interrupted_folders(settings.out, settings.task)):
            on_event(Note("training", f"{interrupted} was interrupted: --resume {interrupted} continues it; this is a new training"))
    run_id = settings.name or runs.new_id(settings.strategy_label, settings.arch)
    with open_journal(settings.out, settings.task, run_id, settings.to_dict(), resume) as journal, open_tracking(settings.log, on_event) as tracking:
        if task.file:
            journal.facts.set(TASK_FILE, task.file)  # it may have been moved since an interruption
            journal.write()
        if resume and journal.folder:
            on_event(Note("training", f"resuming {read_interrupted(journal.folder).describe()}"))
        try:
            with prepare(task, settings, tracking.on_event, journal, callbacks) as session:
                return _train(task, session, settings, like, tracking)
        except KeyboardInterrupt:
            if journal.is_complete:
                raise Interrupted("interrupted; the run is complete", f"To see it: tlfast report {journal.run_folder}") from None
            raise Interrupted(f"interrupted; the checkpoints are in {journal.folder}", f"To resume: {resume_command(settings, journal.run_id)}") from None
        except RuntimeError as error:
            if not processes.is_lost_peer(error):
                raise
            raise processes.PeerLostError(processes.PEER_LOST, f"To resume: {resume_command(settings, journal.run_id)}") from error
        except processes.HalveBatchError as error:
            _record_halving(journal, settings, error)
            raise


def _assist(task: Task, settings: Settings, callbacks: Sequence[Callback]) -> TrainResult:
    """Train the backbone together with the first process, and return its result."""
    try:
        with prepare(task, settings, ignore_event, Journal(), callbacks) as session:
            settings, session.journal.facts, folder = processes.receive()
            try:
                fit(session, settings)
            except processes.HalveBatchError as error:
                # The first process has written other facts since it shared its own. On another machine there is no file.
                _record_halving(Journal(folder, read_facts(folder)) if folder and list_states(folder) else Journal(), settings, error)
                raise
            result: TrainResult = processes.receive()
            return result
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None


def _record_halving(journal: Journal, settings: Settings, error: processes.HalveBatchError) -> None:
    """Let a resumed training begin the phase with half the batch. The process whose memory ran out does this, because all others wait for it."""
    if journal.folder and list_states(journal.folder):  # there are none on another machine, or before the first phase has ended
        journal.facts.halvings += 1
        journal.write()
        checkpoints.remove_checkpoints(journal, error.phase)
        error.run, error.hint = journal.run_id, f"To resume with half the batch: {resume_command(settings, journal.run_id)}"


def estimate_room(model: nn.Sequential, settings: Settings) -> int:
    """Return about how many bytes a training writes: MODEL_COPIES of the weights, and CHECKPOINT_COPIES of those that are trained."""
    trained = {parameter for module in get_strategy(settings.strategy).trainable(model, settings) for parameter in module.parameters()}
    whole, changing = (sum(value.numel() * value.element_size() for value in values) for values in (model.state_dict().values(), trained))
    return MODEL_COPIES * whole + CHECKPOINT_COPIES * changing


def _train(task: Task, session: Session, settings: Settings, like: Mapping[str, Any], tracking: Tracking) -> TrainResult:
    journal, device = session.journal, str(session.learn.dls.device)
    facts = {**_check_origin(task, session, like), "device": device}
    settings, depths = _resolve(session, settings)
    processes.broadcast((settings, journal.facts, journal.folder))
    start_tracking(tracking, journal, settings, {name: facts[name] for name in ("data", "weights", "device")})
    written = files.count_bytes(journal.folder) if journal.folder else 0  # by an interrupted training
    runs.check_room(settings.out, estimate_room(session.learn.model, settings) - written)
    phases, features = fit(session, settings)
    settings = replace(settings, epochs=journal.facts.epochs or settings.epochs)
    predictions = predict_valid(session, settings, features)
    evaluation = evaluate(predictions, "valid", seed=settings.seed, on_event=session.on_event)
    facts["phases"] = list(map(describe_phase, phases))
    facts["seconds"] = journal.seconds
    facts["plan"] = [asdict(depth) for depth in depths]
    folder, agreement = publish(session, settings, phases, evaluation, predictions, facts)
    track_results(tracking, folder, evaluation, session.on_event)
    return TrainResult(
        run=folder.name,
        folder=str(folder),
        settings=settings.to_dict(),
        weights=str(session.weights),
        device=device,
        phases=phases,
        evaluation=evaluation,
        data=session.table.summary(),
        seconds=facts["seconds"],
        onnx=agreement,
        plan=depths,
    )


def _resolve(session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
    """Fill in open settings. Returns the settings, and the depths that were considered; for a long preset the forecast of the training.

    A note names the settings that have no effect with the chosen depth.
    """
    without = find_unused(settings)
    settings, depths = get_strategy(settings.strategy).resolve(session, settings)
    note_unused([name for name in find_unused(settings) if name not in without], session.on_event)
    if depths or settings.preset not in PRESETS or not PRESETS[settings.preset].is_long:
        return settings, depths
    plan = planner.forecast(session, settings)
    duration = f"about {plan.seconds / 60:,.0f} minutes" if plan.seconds > 90 else "less than two minutes"
    session.on_event(Note("training", f"--preset {settings.preset}: {duration} for training {plan.trains}, by the timing of some steps; epochs: {plan.epochs}"))
    return settings, [plan]


def describe_phase(phase: Phase) -> dict[str, Any]:
    """Return the facts about a phase for the manifest. Its epochs and its curve have files of their own."""
    return {name: value for name, value in asdict(phase).items() if name not in ("epochs", "curve")}


def describe_origin(task: Task, session: Session) -> dict[str, Any]:
    """Return the facts about the task's file, the images and the initial weights for the manifest."""
    table = session.table
    summary = table.summary()
    counts = {"counts": summary.counts, "unreadable": [asdict(image) for image in summary.unreadable], "notes": summary.notes}
    return {
        **({"task_file": task.file} if task.file else {}),
        "data": {"source": table.source, "fingerprint": table.fingerprint(), **counts},
        "weights": {"source": str(session.weights), "sha256": hash_weights(session.learn.model[0])},
        **({"teacher": {"runs": session.teacher.runs, "sha256": hash_weights(session.teacher)}} if session.teacher is not None else {}),
    }


def _check_origin(task: Task, session: Session, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of `describe_origin`.

    Raises DataError if they differ from those of the interrupted training. Sends a note if they differ from those of the run `like`.
    """
    origin = describe_origin(task, session)
    images, weights = origin["data"]["fingerprint"], origin["weights"]["sha256"]
    _check_unchanged(session, "images", images, like["data"]["fingerprint"] if like else images)
    classes = list(session.table.classes)
    if session.journal.once("classes", lambda: classes) != classes:
        known = list_some(session.journal.facts.get("classes"))
        raise DataError(f"the classes, or their order, differ from those of the interrupted training: {known}", "Resume it with the task that it began with")
    _check_unchanged(session, "weights", weights, like["weights"]["sha256"] if like else weights)
    if teacher := origin.get("teacher", {}).get("sha256"):
        _check_unchanged(session, "weights of the teacher", teacher, like.get("teacher", {}).get("sha256", teacher))
    return origin


def _check_unchanged(session: Session, name: str, checksum: str, expected: str) -> None:
    """Compare a checksum with the run to repeat, and with the start of an interrupted training."""
    if checksum != expected:
        also = " or their splits" if name == "images" else ""
        session.on_event(Note("data", f"the {name}{also} differ from those of the repeated run, so its results will differ too"))
    if session.journal.once(name, lambda: checksum) != checksum:
        raise DataError(f"the {name} differ from those of the interrupted training", "Restore them, or start a new training: leave out --resume")


# The plan


def plan_run(task: Task, settings: Settings, on_event: OnEvent = ignore_event, resume: str = "") -> DryRun:
    """Return the data, weights, model size and depths of a training, without training. Writes no run. Raises TlfastError.

    `resume` is that of `train_run`: the plan is then that of the interrupted training.
    """
    parse_names(settings.log)
    note_unused(find_unused(settings), on_event)
    with prepare(task, settings, on_event, read_journal(settings.out, settings.task, resume)) as session:
        settings, depths = _resolve(session, settings)
        model = session.learn.model
        trainable = get_strategy(settings.strategy).trainable(model, settings)
        total, trained = (sum(p.numel() for module in modules for p in module.parameters()) for modules in ([model], trainable))
        return DryRun(settings.to_dict(), session.table.summary(), str(session.weights), str(session.learn.dls.device), total, trained, depths)


# The run folder


def publish(
    session: Session, settings: Settings, phases: list[Phase], evaluation: Evaluation, predictions: Predictions, facts: Mapping[str, Any]
) -> tuple[Path, Agreement | None]:
    """Write the run folder. Returns it, and the agreement of `model.onnx` with the network; None with `--no-onnx`.

    `facts` go into the manifest. Raises ExportError if the ONNX file cannot be written or differs from the network. The run is then published
    without the file, so that the training is not lost.
    """
    agreement, failure = None, None
    temperature, run_id = evaluation.calibration.temperature, session.journal.run_id
    with runs.create_run(settings.out, settings.task, run_id) as (folder, published):
        save_model(folder, session.learn.model, session.table.classes, settings.arch, session.preprocessing, temperature)
        try:
            about = _describe_model(session, settings, bool(facts.get("by_hand")))
            agreement = _export_onnx(session, folder / ONNX_FILE, about, temperature, predictions) if settings.onnx else None
        except ExportError as error:
            (folder / ONNX_FILE).unlink(missing_ok=True)
            failure = error
        _write_plots(folder / PLOTS, f"{settings.task}: ", run_id, phases, evaluation)
        save_predictions(folder, predictions, "valid", calibration.apply_temperature(predictions.log_probabilities, temperature))
        scores = {"accuracy": evaluation.accuracy, "macro_f1": evaluation.macro.f1}  # which `tlfast runs` lists
        exported = {"onnx": asdict(agreement) if agreement else None, "temperature": temperature, "scores": scores}
        manifest = records.build_manifest(settings, session.table.classes, session.preprocessing, **facts, **exported)
        rows = drop_spare(session.table.rows)
        records.save_records(folder, manifest, rows, phases, evaluation)
    session.journal.is_complete = True
    if failure:
        raise ExportError(f"{failure.message}; the other files of the run are in {published[0]}", failure.hint) from failure
    return published[0], agreement


def _write_plots(folder: Path, prefix: str, run_id: str, phases: list[Phase], evaluation: Evaluation) -> None:
    for phase in phases:
        if phase.curve:
            name = f"lr-find-{phase.name.replace(' ', '-')}"
            plot_rate_curve(phase.curve, folder / f"{name}.png", f"{prefix}learning-rate finder, {phase.name}")
            files.write_json(folder / f"{name}.json", asdict(phase.curve))
    plot_calibration(evaluation, folder / CALIBRATION_PLOT, f"{prefix}{run_id}")


def _describe_model(session: Session, settings: Settings, by_hand: bool) -> dict[str, str]:
    about = metadata.describe_model(settings, session.table.classes, session.journal.run_id, session.weights.without_folder, read_licence(session.weights))
    return about | ({"strategy": runs.BY_HAND} if by_hand else {})


def _export_onnx(session: Session, path: Path, about: Mapping[str, str], temperature: float, predictions: Predictions) -> Agreement:
    """Write `model.onnx` and compare it with the network on images of the valid split. Raises ExportError."""
    model, preprocessing = session.learn.model, session.preprocessing
    onnx.export_onnx(path, model, preprocessing, about, temperature)
    labels = predictions.log_probabilities.argmax(axis=1).tolist()
    evaluated = {row.path: label for row, label in zip(predictions.rows, labels, strict=True)}
    sample = onnx.sample_images(list(evaluated), model, preprocessing.size)  # rows are sorted by class
    agreement = onnx.check_onnx(path, model, preprocessing, {path: evaluated[path] for path in sample}, session.on_event, temperature)
    if agreement.changed:
        where = f"{agreement.changed:,} of {agreement.images:,} images"
        session.on_event(Note("onnx", f"model.onnx computes in float32 and gives another label than the evaluation to {where}; --amp off evaluates as it does"))
    return agreement
