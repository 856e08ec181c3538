"""`tlfast evaluate`: metrics of a run on its valid or test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from ..core import Note, OnEvent, RunRecord, UsageError, ignore_event, runs
from ..core.files import write_json
from ..core.run_files import CALIBRATION_PLOT, METRICS_FILE, PLOTS, PREDICTIONS_FILE, name_split_file
from ..core.runs import ALL, record_test_use
from ..evaluation import Evaluation, Predictions, apply_temperature, evaluate, plots, save_predictions
from ..inference import load
from ..training.trackers import open_tracking
from . import loaded_run
from .file_predictions import predict_file
from .tracked import track_evaluation


@dataclass(frozen=True)
class EvaluateResult:
    """Result of `tlfast evaluate`.

    Attributes:
        run: id of the run.
        evaluation: metrics on the split.
        files: files written into the run, for the test split only; those of the valid split are written by the training.
    """

    run: str
    evaluation: Evaluation
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return {**asdict(replace(self, evaluation=self.evaluation.without_confusion())), "evaluation": self.evaluation.to_dict()}


@dataclass(frozen=True)
class EvaluateRequest:
    """What to evaluate.

    Attributes:
        split: valid or test; "all" for all images of `data`, with `model.onnx`, on the CPU, without files.
        data: path of the images if they have moved, "" otherwise.
        device: auto, cpu, cuda or mps.
        tta: test-time augmentation of a file that `tlfast export --tta` has written, "" for none. It runs on the CPU, and no files are written.
        log: experiment trackers that get the figures, and the files of the run.
        path_col, label_col: columns of a table as `data` with "all"; "" for those of the training.
    """

    split: str = "valid"
    data: str = ""
    device: str = "auto"
    tta: str = ""
    log: str = ""
    path_col: str = ""
    label_col: str = ""

    @property
    def columns(self) -> dict[str, str]:
        """The given columns, by setting."""
        return {name: value for name, value in (("path_col", self.path_col), ("label_col", self.label_col)) if value}


def evaluate_run(run: RunRecord, request: EvaluateRequest, on_event: OnEvent = ignore_event) -> EvaluateResult:
    """Evaluate a run on its valid or test split, or on all images of another source.

    For the test split, the results are written into the run, and the use of the split is recorded. Raises UsageError for unknown
    trackers, RunError, or DataError if the split is empty or the classes of the data differ from the run's.
    """
    if request.split == ALL and not request.data:
        raise UsageError("--split all needs images", "Name a folder, zip or table of labelled images: --data PATH")
    if (request.tta or request.split == ALL) and request.device not in ("auto", "cpu"):
        given = f"--tta {request.tta}" if request.tta else "--split all"
        raise UsageError(f"{given} runs an ONNX file on the CPU, not on {request.device}", "Leave out --device")
    if request.split != ALL and request.columns:
        raise UsageError("--path-col and --label-col are columns of other images", "Leave them out, or evaluate a table: --split all --data TABLE")
    with open_tracking(request.log, on_event) as tracking:
        result = (_evaluate_file if request.tta or request.split == ALL else _evaluate)(run, request, tracking.on_event)
        track_evaluation(tracking, runs.read_run(run.folder), result.evaluation, request.tta)
    return result


def _evaluate(run: RunRecord, request: EvaluateRequest, on_event: OnEvent) -> EvaluateResult:
    split, model = request.split, loaded_run.load_run(run, request.data, request.device, on_event)
    predictions = loaded_run.predict_split(model, split, on_event)
    evaluation = loaded_run.evaluate_split(model, predictions, split, on_event)
    if split == "valid":
        return EvaluateResult(run.id, evaluation, [])
    names = [name_split_file(name, split) for name in (PREDICTIONS_FILE, METRICS_FILE)]

    def write(folder: Path) -> None:
        save_predictions(folder, predictions, split, apply_temperature(predictions.log_probabilities, model.run.temperature))
        write_json(folder / names[1], evaluation.to_dict())

    record_test_use(run, "evaluate", {"images": len(predictions.rows), "accuracy": evaluation.accuracy}, write)
    picture = plots.plot_calibration(evaluation, run.folder / PLOTS / name_split_file(CALIBRATION_PLOT, split), f"{run.task}: {run.id}, {split} split")
    return EvaluateResult(run.id, evaluation, [*(str(run.folder / name) for name in names), str(picture)])


def _evaluate_file(run: RunRecord, request: EvaluateRequest, on_event: OnEvent) -> EvaluateResult:
    """Evaluate an ONNX file: that of a test-time augmentation, or `model.onnx`."""
    split, tta = request.split, request.tta
    network = load(run.folder, verify=False, tta=tta).network
    listed = (
        loaded_run.list_labelled(run, request.data, request.columns, on_event) if split == ALL else loaded_run.list_split(run, split, request.data, on_event)
    )
    rows, log_probabilities = predict_file(network, listed, "evaluating", on_event)
    if len(rows) < len(listed):
        readable = {row.path for row in rows}
        first = next(row.path for row in listed if row.path not in readable)
        on_event(Note("evaluating", f"{len(listed) - len(rows):,} of {len(listed):,} images cannot be read and are left out, the first: {first}"))
    temperature = float(network.info["temperature"]) if tta else run.temperature  # a file with test-time augmentation has its own
    classes = run.classes
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[row.label] for row in rows])
    predictions = Predictions(rows, classes, log_softmax(temperature * log_probabilities, axis=1), labels)  # before temperature scaling
    seed = run.settings.seed
    if split == "valid":
        return EvaluateResult(run.id, evaluate(predictions, split, seed=seed, calibrated=temperature != 1.0, on_event=on_event), [])
    evaluation = evaluate(predictions, split, temperature, seed, on_event=on_event)
    if split != ALL:
        record_test_use(run, f"evaluate --tta {tta}", {"images": len(rows), "accuracy": evaluation.accuracy})
    return EvaluateResult(run.id, evaluation, [])
