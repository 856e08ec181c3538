"""`tlfast interpret`: where a classifier errs, by fastai's ClassificationInterpretation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from ..core.errors import RunError
from ..core.events import Note, OnEvent, ignore_event
from ..core.files import write_csv, write_json
from ..core.runs import Run, record_test_use
from ..data import images
from ..data.types import Row
from ..evaluation import metrics, plots
from ..evaluation.calibration import apply_temperature
from ..evaluation.report import read_evaluation, write_report
from ..evaluation.types import ConfusedPair, Evaluation, Predictions
from . import loaded_run

PAIRS = 10


class CachedInterpretation(ClassificationInterpretation):
    """fastai's interpretation over predictions made once; its own runs the network anew for each matrix and each list of pairs."""

    def __init__(self, learn: Learner, dl: Any, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        losses = torch.nn.functional.nll_loss(probabilities.clamp_min(1e-12).log(), targets, reduction="none")
        super().__init__(learn, dl, losses)
        self.probabilities, self.targets = probabilities, targets

    def confusion_matrix(self) -> np.ndarray:
        """Counts `[c, c]`, rows actual and columns predicted."""
        size = len(self.vocab)
        cells = self.targets * size + self.probabilities.argmax(dim=1)
        return torch.bincount(cells, minlength=size * size).reshape(size, size).numpy()


def interpret_run(run: Run, split: str = "valid", k: int = 12, data: str = "", on_event: OnEvent = ignore_event) -> InterpretResult:
    """Predict one part of the run's data; draw the confusion matrix and the top losses; list what is most confused.

    Pictures and tables go to `<run>/plots/`. Raises DataError where the part is empty or the run's classes are not the data's.
    """
    model = loaded_run.load_run(run, data, on_event)
    settings, predictions = model.settings, loaded_run.predict_split(model, split, on_event)
    result, rows = loaded_run.evaluate_split(model, predictions, split), predictions.rows
    losses = find_top_losses(build_interpretation(model, predictions), rows, k)
    folder = run.folder / "plots"
    suffix = "" if split == "valid" else f"_{split}"
    title = f"{settings.task}, {settings.tuning} fine-tuning of {settings.arch}: {result.accuracy:.1%} of {len(rows):,} {split} images right"
    pictures = [plots.plot_confusion_matrix(result, folder / f"confusion_matrix{suffix}.png", title)]
    shown = [images.open_image(item["path"]) for item in losses]
    pictures.append(plots.plot_top_losses(losses, shown, folder / f"top_losses{suffix}.png", f"{run.id}: the {len(losses)} largest losses, {split} part"))
    answer = InterpretResult(run.id, result, metrics.most_confused(result)[:PAIRS], losses, [str(path) for path in pictures])
    write_json(folder / f"interpretation{suffix}.json", answer.to_dict())
    write_csv(folder / f"per_class{suffix}.csv", [*result.per_class, result.macro, result.weighted])
    if split == "test":
        run = record_test_use(run, "interpret", {"images": len(rows), "accuracy": result.accuracy})
    return replace(answer, report=_write_report(run, model, split, on_event))


def _write_report(run: Run, model: loaded_run.LoadedRun, split: str, on_event: OnEvent) -> str:
    """Write the report too, where the run kept its predictions of this part; return its place."""
    try:
        stored = read_evaluation(run, split)
        return str(write_report(run, stored, loaded_run.collect_evidence(model, stored.top_losses, on_event), on_event)[0])
    except RunError as error:
        on_event(Note("report", f"{error.message}: {error.hint}"))
        return ""


def build_interpretation(model: loaded_run.LoadedRun, predictions: Predictions) -> CachedInterpretation:
    """Hand predictions, as the run's exports give them, to fastai's interpretation."""
    probabilities = apply_temperature(predictions.log_probabilities, model.temperature).astype(np.float32)
    learn = Learner(model.dls, model.network, loss_func=CrossEntropyLossFlat())
    return CachedInterpretation(learn, model.loader(predictions.rows), torch.from_numpy(probabilities), torch.from_numpy(predictions.labels))


def find_top_losses(interpretation: CachedInterpretation, rows: Sequence[Row], k: int) -> list[dict[str, Any]]:
    """Return the k images with the largest losses: path, truth, prediction, their probabilities and the loss."""
    losses, indices = interpretation.top_losses(min(k, len(rows)))
    found = []
    for loss, i in zip(losses.tolist(), indices.tolist(), strict=True):
        probabilities = interpretation.probabilities[i]
        guess, truth = int(probabilities.argmax()), int(interpretation.targets[i])
        found.append(
            {
                "path": rows[i].path,
                "actual": interpretation.vocab[truth],
                "predicted": interpretation.vocab[guess],
                "probability": float(probabilities[guess]),
                "probability_of_actual": float(probabilities[truth]),
                "loss": loss,
            }
        )
    return found


@dataclass(frozen=True)
class InterpretResult:
    """Where a classifier errs: per-class scores, the most confused pairs and the pictures drawn."""

    run: str
    evaluation: Evaluation
    confused: list[ConfusedPair]
    top_losses: list[dict[str, Any]]
    pictures: list[str]
    report: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "evaluation": self.evaluation.to_dict()}
