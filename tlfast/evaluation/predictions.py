"""Predictions of a network for labelled images, and their parquet file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from torch import nn

from ..core import OnEvent, Progress
from ..core.files import replace_undecodable
from ..core.run_files import PREDICTIONS_FILE, name_split_file, probability_column
from ..data import Row
from ..models import run_by_halves, to_network_input
from .calibration import cross_entropy
from .types import Predictions

Batch = tuple[torch.Tensor, torch.Tensor]  # images [b, 3, h, w] or features [b, d], and class indices [b]


@torch.inference_mode()
def predict_loader(model: nn.Module, batches: Iterable[Batch], rows: Sequence[Row], classes: Sequence[str], on_event: OnEvent) -> Predictions:
    """Run a model in eval mode over labelled batches, which hold the images of `rows` in their order. Batches are divided if memory is too short."""

    def forward(x: torch.Tensor) -> np.ndarray[Any, Any]:
        log_probabilities: np.ndarray[Any, Any] = model(to_network_input(x)).float().log_softmax(dim=1).cpu().numpy()
        return log_probabilities

    model.eval()
    log_probabilities, labels = [], []
    for x, y in batches:
        log_probabilities.append(run_by_halves(forward, x))
        labels.append(y.as_subclass(torch.Tensor).cpu().numpy())
        on_event(Progress("evaluating", sum(map(len, labels)), len(rows)))
    return Predictions(rows, classes, np.concatenate(log_probabilities), np.concatenate(labels))


def save_predictions(folder: Path, predictions: Predictions, split: str, probabilities: np.ndarray) -> Path:
    """Write the predictions for one split as parquet and return the file.

    Columns: path, label, split, prediction, loss, and `p(class)` for each class, from `probabilities` `[n, c]`.
    """
    predicted, classes, rows = probabilities.argmax(axis=1), predictions.classes, predictions.rows
    columns = {
        "path": pa.array([replace_undecodable(row.path) for row in rows]),
        "label": pa.array([row.label for row in rows]),
        "split": pa.array([split] * len(rows)),
        "prediction": pa.array([classes[i] for i in predicted]),
        "loss": pa.array(cross_entropy(probabilities, predictions.labels), pa.float32()),
        **{probability_column(name): pa.array(probabilities[:, i], pa.float32()) for i, name in enumerate(classes)},
    }
    path = folder / name_split_file(PREDICTIONS_FILE, split)
    with path.open("wb") as file:  # pyarrow would expand a "~" in the path
        parquet.write_table(pa.table(list(columns.values()), names=list(columns)), file)
    return path
