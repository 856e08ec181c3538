"""`tlfast interpret`: per-class scores, confusion matrix, confused pairs and top losses, by fastai's ClassificationInterpretation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from ..core import Note, OnEvent, RunError, RunRecord, ignore_event
from ..core.files import write_csv, write_json
from ..core.run_files import PLOTS, name_split_file
from ..core.runs import record_test_use, refer_to
from ..data import Row
from ..evaluation import ConfusedPair, Evaluation, Predictions, TopLoss, apply_temperature, most_confused
from ..evaluation.report import read_evaluation
from ..evaluation.report.inputs import RankedPredictions
from . import loaded_run, report
from .error_pictures import plot_errors

PAIRS = 10  # most confused pairs in the result


@dataclass(frozen=True)
class InterpretResult:
    """Result of `tlfast interpret`.

    Attributes:
        run: id of the run.
        evaluation: metrics on the split, per class too.
        confused: the most confused pairs of classes, the most frequent first.
        top_losses: the images with the largest losses, the largest first.
        pictures: files of the plots.
        report: page of the run, "" if it could not be written.
    """

    run: str
    evaluation: Evaluation
    confused: list[ConfusedPair]
    top_losses: list[TopLoss]
    pictures: list[str]
    report: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return {**asdict(replace(self, evaluation=self.evaluation.without_confusion())), "evaluation": self.evaluation.to_dict()}


class CachedInterpretation(ClassificationInterpretation):
    """fastai's interpretation of given predictions. The base class runs the network again for each matrix and each list of pairs."""

    def __init__(self, learn: Learner, dl: Any, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        """Take probabilities `[n, c]` and class indices `[n]` for the images of the loader `dl`, in its order."""
        losses = torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), targets, reduction="none")
        super().__init__(learn, dl, losses)
        self.probabilities, self.targets = probabilities, targets

    def confusion_matrix(self) -> np.ndarray:
        """Return counts `[c, c]`; rows are actual classes, columns predicted ones."""
        size = len(self.vocab)
        cells = self.targets * size + self.probabilities.argmax(dim=1)
        return torch.bincount(cells, minlength=size * size).reshape(size, size).numpy()


def interpret_run(run: RunRecord, split: str = "valid", k: int = 12, data: str = "", device: str = "auto", on_event: OnEvent = ignore_event) -> InterpretResult:
    """Predict a split; plot the confusion matrix and the `k` top losses; list the most confused pairs; write the report.

    Plots and tables go to `<run>/plots/`. `data` names the images if they have moved. Raises RunError, or DataError if the split is empty or the
    classes of the data differ from the run's.
    """
    model = loaded_run.load_run(run, data, device, on_event)
    predictions = loaded_run.predict_split(model, split, on_event)
    evaluation = loaded_run.evaluate_split(model, predictions, split, on_event)
    top_losses = find_top_losses(build_interpretation(model, predictions), predictions.rows, k)
    pictures = plot_errors(run, evaluation, top_losses)
    result = InterpretResult(run.id, evaluation, most_confused(evaluation.confusion, evaluation.classes)[:PAIRS], top_losses, [str(path) for path in pictures])
    folder = run.folder / PLOTS
    write_json(folder / name_split_file("interpretation.json", split), result.to_dict())
    write_csv(folder / name_split_file("per_class.csv", split), [*evaluation.per_class, evaluation.macro, evaluation.weighted])
    if split == "test":
        run = record_test_use(run, "interpret", {"images": len(predictions.rows), "accuracy": evaluation.accuracy})
    return replace(result, report=_write_report(run, model, split, on_event))


def build_interpretation(model: loaded_run.LoadedRun, predictions: Predictions) -> CachedInterpretation:
    """Return fastai's interpretation of predictions, with the run's temperature applied."""
    probabilities = apply_temperature(predictions.log_probabilities, model.run.temperature).astype(np.float32)
    learn = Learner(model.dls, model.network, loss_func=CrossEntropyLossFlat())
    return CachedInterpretation(learn, model.loader(predictions.rows), torch.from_numpy(probabilities), torch.from_numpy(predictions.labels))


def find_top_losses(interpretation: CachedInterpretation, rows: Sequence[Row], k: int) -> list[TopLoss]:
    """Return the `k` images with the largest losses."""
    losses, indices = interpretation.top_losses(min(k, len(rows)))
    probabilities, actual = interpretation.probabilities[indices], interpretation.targets[indices]
    confidence, predicted = probabilities.max(dim=1)
    ranked = RankedPredictions(
        paths=[rows[i].path for i in indices.tolist()],
        actual=actual.numpy(),
        predicted=predicted.numpy(),
        losses=losses.numpy(),
        confidence=confidence.numpy(),
        probability_of_actual=probabilities.gather(1, actual[:, None])[:, 0].numpy(),
    )
    return ranked.list_top_losses(interpretation.vocab, k)


def _write_report(run: RunRecord, model: loaded_run.LoadedRun, split: str, on_event: OnEvent) -> str:
    """Write the report if the run stores predictions for the split. Returns its path, or ""."""
    try:
        stored = read_evaluation(run, split)
        evidence, without_paths = loaded_run.collect_evidence(model, stored.top_losses, on_event), report.is_without_paths(run, split)
        if without_paths:
            option = "" if split == "valid" else f" --split {split}"
            on_event(Note("report", f"without local paths, as it was; with them: tlfast report {refer_to(run)}{option}"))
        return str(report.write_page(run, stored, evidence, not without_paths, on_event)[0])
    except RunError as error:
        if not run.is_pulled:
            on_event(Note("report", f"{error.message}: {error.hint}"))
        return ""
