"""What the commands tell experiment trackers: settings and origin at the start, figures, pictures and files at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import Journal, Note, OnEvent, RunRecord, Settings, TlfastError, runs
from ..core.errors import first_line
from ..core.metrics import compute_metrics, confusion_matrix
from ..core.run_files import (
    CALIBRATION_PLOT,
    CARD_FILE,
    HISTORY_FILE,
    LOSSES_PLOT,
    MANIFEST,
    MATRIX_PLOT,
    METRICS_FILE,
    ONNX_FILE,
    PLOTS,
    REPORT_FILE,
    WEIGHTS_FILE,
    name_split_file,
)
from ..core.system import package_versions
from ..data import ImageTable
from ..evaluation import Evaluation
from ..evaluation.comparison import Outcome
from ..evaluation.report import Evidence, read_evaluation, write_report
from ..training.trackers import RunInfo, Tracking
from .error_pictures import plot_errors

SHOWN = 12  # images in the picture of the top losses
PICTURES = (MATRIX_PLOT, LOSSES_PLOT, CALIBRATION_PLOT)


def start_tracking(tracking: Tracking, journal: Journal, settings: Settings, facts: Mapping[str, Any]) -> None:
    """Begin the tracked run of a training, or continue it. The journal keeps its key, and its trackers. `facts` are those of `run.json`."""
    if not tracking:
        return
    unknown = tracking.names if journal.facts.get("tracking") else []  # in journals of earlier versions
    earlier = journal.facts.get("trackers", unknown)
    key = str(journal.facts.get("tracking") or uuid.uuid4().hex)
    journal.facts.set("tracking", key)
    journal.facts.set("trackers", sorted({*earlier, *tracking.names}))
    journal.write()
    values = {"settings": settings.to_dict(), "versions": package_versions(), **facts}
    tracking.start(journal.run_id, RunInfo(settings.task, settings.out, key, values=values), journal, earlier)


def track_results(tracking: Tracking, folder: Path, evaluation: Evaluation, on_event: OnEvent) -> None:
    """Log the figures and files of a new run. Its report and pictures, which other commands write, are written for it."""
    if not tracking:
        return
    tracking.log_evaluation(evaluation)
    run = runs.read_run(folder)
    try:
        _draw_results(run, evaluation)
    except (TlfastError, OSError) as error:  # the run is complete, with or without them
        on_event(Note("trackers", f"the report or its pictures are missing: {first_line(error)}"))
    _add_files(tracking, run, evaluation.split)


def _draw_results(run: RunRecord, evaluation: Evaluation) -> None:
    """Write the report, without activation maps, and the pictures of the confusion matrix and the top losses into a run."""
    stored = read_evaluation(run, evaluation.split)
    write_report(run, stored, Evidence({}, None))
    plot_errors(run, evaluation, stored.predictions.list_top_losses(evaluation.classes, SHOWN))


def _add_files(tracking: Tracking, run: RunRecord, split: str) -> None:
    """Add the pictures, tables and pages of a run for a split, and its model: `model.onnx`, or the weights of a run without it."""
    model = run.folder / ONNX_FILE
    names = [name_split_file(name, split) for name in (METRICS_FILE, REPORT_FILE, CARD_FILE)]
    paths = [run.folder / PLOTS / name_split_file(name, split) for name in PICTURES]
    paths += [run.folder / name for name in (MANIFEST, HISTORY_FILE, *names)]
    tracking.add_files([*paths, model if model.is_file() else run.folder / WEIGHTS_FILE])


def track_evaluation(tracking: Tracking, run: RunRecord, evaluation: Evaluation, tta: str = "") -> None:
    """Log an evaluation of a finished run as a tracked run of its own; without `tta` also the files that the run has for the split."""
    if not tracking:
        return
    facts: dict[str, Any] = {name: run.manifest[name] for name in ("settings", "versions", "data", "weights") if name in run.manifest}
    out = str(run.folder.parent.parent) if run.folder.parent.name == run.task else Settings.out
    name = "-".join(filter(None, (run.id, "evaluate", evaluation.split, tta)))
    tracking.start(name, RunInfo(run.task, out, uuid.uuid4().hex, values={**facts, "run": run.id}), Journal())
    tracking.log_evaluation(evaluation)
    if not tta:
        _add_files(tracking, run, evaluation.split)
    tracking.end("finished")


@dataclass(frozen=True)
class TrackedComparison:
    """The trackers of a comparison, the group of its tracked runs, and the source and fingerprint of its images."""

    tracking: Tracking
    group: str
    data: Mapping[str, str]


def describe_images(tracking: Tracking, table: ImageTable) -> dict[str, str]:
    """Return source and fingerprint of the images; nothing without trackers, because the fingerprint takes time."""
    return {"source": table.source, "fingerprint": table.fingerprint()} if tracking else {}


@contextmanager
def track_trial(tracked: TrackedComparison, settings: Settings, name: str) -> Iterator[list[Outcome]]:
    """Track one training of a comparison: its result is the outcome that the block adds to the list."""
    outcomes: list[Outcome] = []
    tracking, group = tracked.tracking, tracked.group
    if tracking:
        values = {"settings": settings.to_dict(), "versions": package_versions(), "data": tracked.data, "arm": name}
        tracking.start(f"{group}-{name}", RunInfo(settings.task, settings.out, uuid.uuid4().hex, group=group, values=values), Journal())
    yield outcomes
    for outcome in outcomes if tracking else ():
        tracking.log_figures(_score_outcome(outcome))
    tracking.end("finished")


def _score_outcome(outcome: Outcome) -> dict[str, float | None]:
    """Return all metrics of predicted classes, and the cost of the training."""
    labels, predicted = (np.array([values[path] for path in outcome.labels]) for values in (outcome.labels, outcome.predicted))
    counts = confusion_matrix(labels, predicted, int(max(labels.max(), predicted.max())) + 1)
    scores = {name: float(value) for name, value in compute_metrics(counts).items()}
    return {**scores, "seconds": outcome.seconds, "trained_on": outcome.trained_on, "reused": float(outcome.reused)}
