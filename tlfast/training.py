"""`tlfast train`: from a task and settings to an evaluated, exported run. Also its plan (`--dry-run`) and `tlfast lr-find`."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from fastai.torch_core import set_seed

from . import backbones, calibration, callbacks, checkpoints, evaluation, exporting, inference, learner, planning, plotting, portable, precision, tasks
from .activations import UPPER, ActivationLoader, features_of, upper_learner
from .bench import Bench
from .core import files, runs
from .core.errors import DataError, ExportError, Interrupted, TrainingError
from .core.events import Event, OnEvent, ignore_event
from .core.journal import Journal, check_free, list_interrupted, open_journal, run_id_of
from .core.settings import Settings
from .core.system import release_memory
from .data import ImageTable, Store, duplicates, load_table, open_store
from .data.loaders import build_loaders, plain_loader
from .data.sources import locate
from .data.split import SPLITS
from .data.store import image_digests
from .data.task import Task
from .features import Features, extract
from .fitting import CUSTOMARY_RATE, EPOCHS, PhasePlan, class_weights, find_rate, fit_phase
from .outcomes import Plan, TrainResult
from .probe import adapt_batchnorm, train_head
from .results import Agreement, Evaluation, Phase, Predictions, RateCurve
from .stages import Divided, divided

# All layers together: the lowest group of parameters, which knows most already, moves at a fifth of the head's rate. One cycle may reach the
# very rate of the finder's least loss, ten times its `minimum`: 4 epochs on seedlings gave 0.833 at 7e-4, 0.887 at 2e-3, 0.925 at 1e-2, and
# 3 epochs on 8,000 faces 0.510 at 1e-3, 0.535 at 2e-3, 0.551 at 5e-3; 8 epochs on all of FER2013 0.650 at 2.6e-3, and 0.599 at 1.8e-4, to which
# the rounding of another optimizer had moved the minimum of a flat curve (mobilenetv2_100, November 2026).
ALL_LAYERS = {"name": "all layers", "spread": 5.0, "rate_scale": 10.0, "customary": CUSTOMARY_RATE}


BATCHNORM = "head and BatchNorm"


def train(task: Task, settings: Settings, on_event: OnEvent = ignore_event, resume: str = "", like: Mapping[str, Any] = MappingProxyType({})) -> TrainResult:
    """Train, evaluate and export.

    `resume` names an interrupted training to go on with, whose settings these are; `like` is the manifest of a run that is repeated.
    Raises TlfastError, Interrupted among them; the run folder is whole or absent.
    """
    runs.check_writable(settings.out, settings.task, "" if resume else settings.name)
    if not resume:
        check_free(settings.out, settings.task, settings.name)
        for left in map(run_id_of, list_interrupted(settings.out, settings.task)):
            on_event(Event("training", note=f"{left} was interrupted: --resume {left} goes on with it, this is a new one"))
    run_id = settings.name or runs.new_id(settings.tuning, settings.arch)
    with open_journal(settings.out, settings.task, run_id, {"settings": settings.to_dict()}, resume) as journal:
        try:
            with prepared(task, settings, on_event) as bench:
                return _trained(bench, settings, on_event, journal, like)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; what was learned is in {journal.folder}", f"Go on with it: {_resuming(settings, journal)}") from None


def _trained(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal, like: Mapping[str, Any]) -> TrainResult:
    facts = {
        "data": {"source": bench.table.source, "fingerprint": bench.table.fingerprint(), **_counts(bench.table)},
        "weights": {"source": str(bench.weights), "sha256": learner.fingerprint(bench.learn.model[0])},
        "device": str(bench.learn.dls.device),
    }
    for name, group, key in (("images", "data", "fingerprint"), ("weights", "weights", "sha256")):
        said = facts[group][key]
        if like and like[group][key] != said:
            on_event(Event("data", note=f"the {name} are not those of the run that is repeated: its figures will be others"))
        if journal.once(name, lambda value=said: value) != said:
            raise DataError(f"the {name} are not those that the interrupted training began with", "Put them back, or train anew without --resume")
    facts["asked"] = {"depth": settings.depth, "minutes": settings.minutes}
    settings, plan = planning.settled(bench, settings, on_event, journal)
    phases, _ = fit(bench, settings, on_event, journal)
    settings = replace(settings, epochs=journal.facts.get(EPOCHS, settings.epochs))
    predictions = judge(bench, settings, on_event)
    result = evaluation.evaluate(predictions, "valid", seed=settings.seed)
    facts["phases"] = [{name: value for name, value in asdict(p).items() if name not in ("epochs", "curve")} for p in phases]
    facts["seconds"] = journal.seconds
    facts["plan"] = [asdict(choice) for choice in plan]
    folder, agreement = publish(bench, journal.run_id, settings, phases, (result, predictions), facts, on_event)
    about = settings.to_dict(), str(bench.weights), facts["device"], phases, result, bench.table.summary(), facts["seconds"]
    return TrainResult(folder.name, str(folder), *about, agreement, plan)


def _resuming(settings: Settings, journal: Journal) -> str:
    """Return the command that goes on with an interrupted training."""
    out = settings.out if settings.out != Settings.out else None
    return tasks.train_command(settings.task, settings.data, settings.strategy, {"out": out, "resume": journal.run_id})


def plan(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> Plan:
    """Say what `train` would do with these settings: data, weights, model size. Writes nothing."""
    with prepared(task, settings, on_event) as bench:
        settings, choices = planning.settled(bench, settings, on_event, Journal())
        body, head = bench.learn.model
        parts = {"partial": [head], "middle": [head], "full": [head, body]}[settings.strategy]
        if settings.strategy == "middle":
            parts.append(divided(body, settings.arch, int(settings.depth), settings.size).upper)
        total, trained = (sum(p.numel() for part in those for p in part.parameters()) for those in ([body, head], parts))
        return Plan(settings.to_dict(), bench.table.summary(), str(bench.weights), str(bench.learn.dls.device), total, trained, choices)


def lr_find(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> dict[str, tuple[RateCurve, Path]]:
    """Run the learning-rate finder of each phase that the settings would train; draw its curve into `<out>/<task>/`.

    With all layers or the topmost stages the head is trained first, as it would be. Returns phase -> (curve, picture).
    """
    settings = replace(settings, lr="auto")  # a rate that was typed does not stop the search
    runs.check_writable(settings.out, settings.task, "")
    stamp, found = f"{datetime.now():%Y%m%d-%H%M%S}", {}
    with prepared(task, settings, on_event) as bench:
        settings, _ = planning.settled(bench, settings, on_event, Journal())
        for name, curve in _curves(bench, settings, on_event).items():
            picture = Path(settings.out) / settings.task / f"lr-find-{stamp}-{name.replace(' ', '-')}.png"
            found[name] = (curve, plotting.rate_curve(curve, picture, f"{settings.task}: learning-rate finder, {name}"))
    return found


def _curves(bench: Bench, settings: Settings, on_event: OnEvent) -> dict[str, RateCurve]:
    if settings.strategy == "middle":
        parts, kept, first = _lower_stages(bench, settings, on_event, Journal(), None)
    else:
        first, _ = train_first(bench, settings, on_event, Journal())
    curves = {first.name: first.curve} if first and first.curve else {}
    if settings.strategy == "middle":
        with upper_learner(bench, parts, kept, settings, Journal()) as (upper, _):
            curves[UPPER["name"]] = find_rate(upper, PhasePlan(epochs=settings.epochs, **UPPER), on_event)
    if settings.strategy == "full":
        with ready_for_all_layers(bench, settings, Journal()):
            curves[ALL_LAYERS["name"]] = find_rate(bench.learn, PhasePlan(epochs=settings.epochs, **ALL_LAYERS), on_event)
    return curves


@contextmanager
def prepared(task: Task, settings: Settings, on_event: OnEvent) -> Iterator[Bench]:
    """Check everything that can be checked before any training, then build loaders and learner."""
    learner.check_arch(settings.arch)
    device = learner.pick_device(settings.device)
    weights = backbones.find_weights(settings.arch, settings.weights)
    stats = learner.stats(weights)
    table, store = open_store(load_table(task, settings, locate(task, settings.data)), settings, on_event)
    for note in [*table.notes, *_copies(table, store)]:
        on_event(Event("data", note=note))
    for bad in table.unreadable:
        on_event(Event("data", note=f"skipped {bad.path}: {bad.reason}"))
    set_seed(settings.seed, reproducible=True)
    dls = build_loaders(table, settings, stats, device, store)
    learn = learner.build_learner(dls, settings, weights, _class_weights(table, settings, device))
    with tempfile.TemporaryDirectory() as scratch:  # fastai keeps the finder's copy of the model there
        learn.path = Path(scratch)
        yield Bench(table, store, weights, stats, learn)


def fit(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal) -> tuple[list[Phase], Features | None]:
    """Train by the settings' strategy: the head on frozen features, and with `full` then all layers at discriminative rates.

    What the journal knows to be done is not done again. Returns the phases, and the features where those are still what the model makes of the images.
    """
    full, middle = settings.strategy == "full", settings.strategy == "middle"
    name = BATCHNORM if settings.train_bn and settings.strategy == "partial" else "head"
    first, features = checkpoints.finished(journal, name, bench.learn.model), None
    if middle:
        return _upper_stages(bench, settings, on_event, journal, first), None
    if not first:
        first, features = train_first(bench, settings, on_event, journal)
    phases = [first] if first else []
    if full:
        last = checkpoints.finished(journal, ALL_LAYERS["name"], bench.learn.model) or _all_layers(bench, settings, on_event, journal, first)
        return [*phases, last], None
    return phases, features


def _upper_stages(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal, first: Phase | None) -> list[Phase]:
    """Train the topmost stages on what the frozen ones below make of the images, the head first; `first` if that was done before an interruption."""
    last = checkpoints.finished(journal, UPPER["name"], bench.learn.model)
    if not last:
        parts, kept, first = _lower_stages(bench, settings, on_event, journal, first)
        plan = PhasePlan(epochs=settings.epochs, features=kept.cost, epochs_in_time=planning.epochs_in_time(journal), **UPPER)

        def attempt(own: Settings) -> Phase:
            with upper_learner(bench, parts, kept, own, journal) as (upper, amp):
                return fit_phase(upper, replace(plan, precision=amp), own, on_event, journal, bench.learn.model, first)

        last = _within_memory(bench, settings, plan.name, on_event, journal, attempt)
    return [*([first] if first else []), last]


def _lower_stages(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal, first: Phase | None) -> tuple[Divided, Features, Phase | None]:
    """Divide the body, keep what its lower stages make of the images, and train the head on what the upper ones make of that, if it is not."""
    learn = bench.learn
    parts = divided(learn.model[0], settings.arch, int(settings.depth), settings.size)
    kept = extract(parts.lower, bench, settings, on_event)
    if not first and settings.freeze_epochs:
        set_seed(settings.seed, reproducible=True)  # the loader draws its own seed
        adapt_batchnorm(parts.upper, ActivationLoader(kept.train, settings.bs, True, learn.dls.device), settings, on_event)
        first = train_head(learn, features_of(kept, parts, on_event), settings.freeze_epochs, settings, on_event, journal)
    return parts, kept, first


def _all_layers(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal, before: Phase | None) -> Phase:
    plan = PhasePlan(epochs=settings.epochs, epochs_in_time=planning.epochs_in_time(journal), **ALL_LAYERS)

    def attempt(own: Settings) -> Phase:
        if own != settings:
            bench.learn.dls = bench.loaders(own)
        with ready_for_all_layers(bench, own, journal) as amp:
            return fit_phase(bench.learn, replace(plan, precision=amp), own, on_event, journal, bench.learn.model, before)

    return _within_memory(bench, settings, plan.name, on_event, journal, attempt)


def _within_memory(bench: Bench, settings: Settings, phase: str, on_event: OnEvent, journal: Journal, attempt: Callable[[Settings], Phase]) -> Phase:
    """Train a phase; where a GPU's memory does not suffice, in smaller batches of which more are added up, from the phase's beginning."""
    began = copy.deepcopy(bench.learn.model.state_dict())
    while True:
        own = _halved(settings, journal.facts.get("halvings", 0))
        try:
            return attempt(own)
        except torch.OutOfMemoryError:
            if own.bs == 1 or not settings.auto_bs:
                raise TrainingError(f"the memory of {bench.learn.dls.device} does not suffice for --bs {own.bs}", "Use a smaller --bs or --size") from None
        journal.facts["halvings"] = journal.facts.get("halvings", 0) + 1
        journal.write()
        checkpoints.forget(journal, phase)
        bench.learn.opt = None
        bench.learn.model.load_state_dict(began)
        torch.cuda.empty_cache()
        on_event(Event(phase, note=f"out of memory with {own.bs} images in a batch: half as many, twice as many batches to a step"))


def _halved(settings: Settings, times: int) -> Settings:
    bs = max(1, settings.bs >> times)
    return replace(settings, bs=bs, accumulate=settings.accumulate * (settings.bs // bs))


@contextmanager
def ready_for_all_layers(bench: Bench, settings: Settings, journal: Journal) -> Iterator[str]:
    """Set the learner up to train all its layers as the settings say; yields the number format."""
    learn = bench.learn
    learn.unfreeze()
    release_memory()  # blocks of the sizes that the head's phase needed
    amp = journal.once("precision", lambda: precision.choose(learn, settings, (3, settings.size, settings.size)))
    if settings.compile:
        learn.model.compile()
    with learn.added_cbs([callbacks.NetworkInput(), *precision.callbacks(amp, learn.dls.device), *callbacks.asked_for(settings)]):
        yield amp


def train_first(bench: Bench, settings: Settings, on_event: OnEvent, journal: Journal) -> tuple[Phase | None, Features | None]:
    """Train the head alone on the frozen backbone's features: all of partial fine-tuning, the start of full fine-tuning.

    With `train_bn`, partial fine-tuning is on images instead, as fastai does it.
    """
    full = settings.strategy == "full"
    if settings.train_bn and not full:
        bench.learn.freeze()  # fastai's: BatchNorm goes on training
        with bench.learn.added_cbs(callbacks.NetworkInput()):
            return fit_phase(bench.learn, PhasePlan(BATCHNORM, settings.epochs), settings, on_event, journal, bench.learn.model), None
    epochs = settings.freeze_epochs if full else settings.epochs
    if not epochs:
        return None, None
    if full:
        adapt_batchnorm(bench.learn.model[0], bench.learn.dls.train, settings, on_event)
    features = extract(bench.learn.model[0], bench, settings, on_event)
    return train_head(bench.learn, features, epochs, settings, on_event, journal), features


def judge(bench: Bench, settings: Settings, on_event: OnEvent) -> Predictions:
    """Run the whole model on the images of the valid part."""
    release_memory()
    rows = bench.table.part("valid")
    loader = plain_loader(bench.learn.dls, rows, settings.bs)
    return evaluation.predict(bench.learn.model, loader, rows, bench.table.classes, on_event)


def publish(
    bench: Bench, run_id: str, settings: Settings, phases: list[Phase], judged: tuple[Evaluation, Predictions], facts: dict, on_event: OnEvent
) -> tuple[Path, Agreement | None]:
    """Write the run folder; return it and how well its ONNX file agrees with the network.

    Raises ExportError where it does not, or cannot be written: the run is kept without it, for it may have taken hours.
    """
    agreement, failure = None, None
    result, predictions = judged
    temperature = result.calibration.temperature
    with runs.create_run(settings.out, settings.task, run_id) as (folder, published):
        exporting.save_model(folder, bench.learn.model, bench.table.classes, settings, bench.stats, temperature)
        try:
            agreement = export_onnx(bench, folder / inference.FILE, run_id, settings, temperature, on_event) if settings.onnx else None
        except ExportError as error:
            (folder / inference.FILE).unlink(missing_ok=True)
            failure = error
        for phase in phases:
            if phase.curve:
                name = phase.name.replace(" ", "-")
                plotting.rate_curve(phase.curve, folder / "plots" / f"lr-find-{name}.png", f"{settings.task}: learning-rate finder, {phase.name}")
                files.write_json(folder / "plots" / f"lr-find-{name}.json", asdict(phase.curve))
        plotting.calibration(result, folder / "plots" / "calibration.png", f"{settings.task}: {run_id}")
        exporting.save_predictions(folder, predictions, "valid", calibration.tempered(predictions.log_probabilities, temperature))
        facts |= {"onnx": asdict(agreement) if agreement else None, "temperature": temperature}
        manifest = exporting.manifest(settings, bench.table.classes, bench.stats, **facts)
        rows = [row for row in bench.table.rows if row.split in SPLITS]
        exporting.save_records(folder, manifest, rows, phases, result)
    if failure:
        raise ExportError(f"{failure.message}; all else of the run is in {published[0]}", failure.hint) from failure
    return published[0], agreement


def export_onnx(bench: Bench, path: Path, run_id: str, settings: Settings, temperature: float, on_event: OnEvent) -> Agreement:
    """Write `model.onnx` and compare it with the network on images of the valid part. Raises ExportError."""
    about = exporting.portrait(settings, bench.table.classes, run_id, str(bench.weights), learner.licence(bench.weights))
    portable.save(path, bench.learn.model, settings, bench.stats, about, temperature)
    sources = [row.path for row in bench.table.part("valid")]
    spread = sources[:: math.ceil(len(sources) / portable.CHECKED)]  # rows lie class by class
    return portable.check(path, bench.learn.model, settings, bench.stats, spread, on_event, temperature)


def _copies(table: ImageTable, store: Store | None) -> list[str]:
    """Say what images are there twice, where they were decoded anyway."""
    said = duplicates.describe_duplicates(table.rows, image_digests(store)) if store else ""
    return [f"{said}; tlfast data check names them, --drop leaves them out"] if said else []


def _class_weights(table: ImageTable, settings: Settings, device: torch.device) -> torch.Tensor | None:
    if settings.class_weights == "none":
        return None
    index = {label: i for i, label in enumerate(table.classes)}
    return class_weights([index[row.label] for row in table.part("train")], len(index)).to(device)


def _counts(table: ImageTable) -> dict:
    summary = table.summary()
    return {"counts": summary.counts, "unreadable": [asdict(bad) for bad in summary.unreadable], "notes": summary.notes}
