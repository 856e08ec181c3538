"""What a report shows of a run: its stored metrics and predictions for one split, activation maps, and findings of the data check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pyarrow import parquet

from ...core import RunError, RunRecord
from ...core.run_files import PREDICTIONS_FILE, name_split_file, probability_column
from ...core.runs import read_metrics, refer_to
from ...data import Finding, Row
from ..types import TopLoss

TOP_LOSSES = 24  # images with the largest losses in a report


@dataclass(frozen=True)
class RankedPredictions:
    """Predictions for the n images of a split, largest loss first.

    Attributes:
        paths: paths of the images.
        actual: class indices of the labels `[n]`.
        predicted: predicted class indices `[n]`.
        losses: losses `[n]`.
        confidence: probabilities of the predicted classes `[n]`.
        probability_of_actual: probabilities of the classes of the labels `[n]`.
    """

    paths: list[str]
    actual: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    confidence: np.ndarray
    probability_of_actual: np.ndarray

    def list_top_losses(self, classes: Sequence[str], count: int) -> list[TopLoss]:
        """Return the `count` images with the largest losses; `classes` are the class names, in the order of the indices."""
        return [
            TopLoss(
                path=self.paths[i],
                actual=classes[int(self.actual[i])],
                predicted=classes[int(self.predicted[i])],
                probability=float(self.confidence[i]),
                probability_of_actual=float(self.probability_of_actual[i]),
                loss=float(self.losses[i]),
            )
            for i in range(min(count, len(self.paths)))
        ]


@dataclass(frozen=True)
class StoredEvaluation:
    """Metrics and predictions that a run stores for one split.

    Attributes:
        metrics: content of `metrics.json` or `metrics_<split>.json`.
        predictions: content of `predictions.parquet` or `predictions_<split>.parquet`.
    """

    metrics: dict[str, Any]
    predictions: RankedPredictions

    @property
    def top_losses(self) -> list[str]:
        """Paths of the images with the largest losses, as many as the report shows."""
        return self.predictions.paths[:TOP_LOSSES]


@dataclass(frozen=True)
class Evidence:
    """What a report needs besides the files of a run.

    Attributes:
        maps: path -> image with its activation map.
        findings: findings of the data check; None if the images were not checked.
        unchecked: sentence of the page on why there are no findings, for None.
        rows: images of the run, for the table that the page holds; none if it should hold no table.
        unlisted: sentence of the page on why it holds no table, without rows.
    """

    maps: Mapping[str, Image.Image]
    findings: Sequence[Finding] | None
    unchecked: str = ""
    rows: Sequence[Row] = ()
    unlisted: str = ""


def read_evaluation(run: RunRecord, split: str) -> StoredEvaluation:
    """Read the stored metrics and predictions for a split. Raises RunError if the run has none, or damaged ones."""
    try:
        metrics = read_metrics(run.folder, split)
        return StoredEvaluation(metrics, _read_predictions(run.folder / name_split_file(PREDICTIONS_FILE, split), metrics["classes"]))
    except (OSError, KeyError, ValueError):
        if split != "valid":
            hint = f"Run first: tlfast evaluate {refer_to(run)} --split {split}"
        elif run.is_pulled:
            hint = f"It was pulled from the hub. On your images: tlfast interpret {refer_to(run)} --data PATH"
        else:
            hint = "Train again; runs of older versions have no predictions"
        raise RunError(f"{run.folder} has no predictions for the {split} split to report", hint) from None


def _read_predictions(path: Path, classes: Sequence[str]) -> RankedPredictions:
    table = parquet.read_table(path)
    index = {label: i for i, label in enumerate(classes)}
    losses = table["loss"].to_numpy()
    order = np.argsort(-losses, kind="stable")
    probabilities = np.stack([table[probability_column(label)].to_numpy() for label in classes])  # [c, n]
    actual, predicted = (np.array([index[label] for label in table[name].to_pylist()]) for name in ("label", "prediction"))
    paths = table["path"].to_pylist()
    return RankedPredictions(
        paths=[paths[i] for i in order],
        actual=actual[order],
        predicted=predicted[order],
        losses=losses[order],
        confidence=probabilities.max(axis=0)[order],
        probability_of_actual=probabilities[actual[order], order],
    )
