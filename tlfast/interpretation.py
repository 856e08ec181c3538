"""`tlfast interpret`: where a classifier errs, by fastai's ClassificationInterpretation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat

from . import evaluation, exporting, images, learner, plotting, tasks
from .data import ImageTable, Store, load_table, open_store
from .data.loaders import build_loaders, plain_loader
from .data.sources import locate
from .errors import DataError
from .results import Event, InterpretResult, OnEvent, Row, ignore
from .runs import Run
from .settings import Settings

PAIRS = 10


class OnePass(ClassificationInterpretation):
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


def interpret(run: Run, split: str = "valid", k: int = 12, data: str = "", on_event: OnEvent = ignore) -> InterpretResult:
    """Predict one part of the run's data; draw the confusion matrix and the top losses; list what is most confused.

    Pictures and tables go to `<run>/plots/`. Raises DataError where the part is empty or the run's classes are not the data's.
    """
    settings = Settings.from_dict(run.manifest["settings"])
    table, store = _table(run, settings, data, on_event)
    rows = table.part(split)
    if not rows:
        raise DataError(f"the data of {run.id} has no {split} part", "Use --split " + " or ".join(s for s in ("valid", "test") if table.part(s)))
    interpretation = predicted(run, settings, table, store, rows, on_event)
    result = evaluation.evaluate(interpretation.probabilities.numpy(), interpretation.targets.numpy(), table.classes, split)
    losses = worst(interpretation, rows, k)
    folder = run.folder / "plots"
    suffix = "" if split == "valid" else f"_{split}"
    title = f"{settings.task}, {settings.strategy} fine-tuning of {settings.arch}: {result.accuracy:.1%} of {len(rows):,} {split} images right"
    pictures = [plotting.confusion_matrix(result, folder / f"confusion_matrix{suffix}.png", title)]
    shown = [images.open_image(item["path"]) for item in losses]
    pictures.append(plotting.top_losses(losses, shown, folder / f"top_losses{suffix}.png", f"{run.id}: the {len(losses)} largest losses, {split} part"))
    answer = InterpretResult(run.id, result, evaluation.most_confused(result)[:PAIRS], losses, [str(path) for path in pictures])
    exporting.write_json(folder / f"interpretation{suffix}.json", answer.to_dict())
    exporting.write_csv(folder / f"per_class{suffix}.csv", [*result.per_class, result.macro, result.weighted])
    return answer


def predicted(run: Run, settings: Settings, table: ImageTable, store: Store | None, rows: list[Row], on_event: OnEvent) -> OnePass:
    """Run the model once over the rows and hand the predictions to fastai's interpretation."""
    device = learner.pick_device(settings.device)
    dls = build_loaders(table, settings, (run.manifest["mean"], run.manifest["std"]), device, store)
    model = exporting.load_model(run).to(device)
    loader = plain_loader(dls, rows, settings.bs)
    probabilities, targets = evaluation.predict(model, loader, len(rows), on_event)
    learn = Learner(dls, model, loss_func=CrossEntropyLossFlat())
    return OnePass(learn, loader, torch.from_numpy(probabilities), torch.from_numpy(targets))


def worst(interpretation: OnePass, rows: list[Row], k: int) -> list[dict[str, Any]]:
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


def _table(run: Run, settings: Settings, data: str, on_event: OnEvent) -> tuple[ImageTable, Store | None]:
    """Rebuild the table that the run was trained on; say so where the images have changed since."""
    source = data or run.manifest["data"]["source"]
    task = tasks.registered().get(settings.task) or tasks.folder_task(Path(source))
    table, store = open_store(load_table(task, replace(settings, data=source), locate(task, source)), settings, on_event)
    if list(table.classes) != run.manifest["classes"]:
        raise DataError(f"{source} has other classes than the run {run.id}", f"The run's are: {', '.join(run.manifest['classes'])}")
    if table.fingerprint() != run.manifest["data"]["fingerprint"]:
        on_event(Event("data", note=f"the images of {source} are not those that {run.id} was trained on"))
    return table, store
