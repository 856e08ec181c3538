"""Predictions for images, and their totals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image: label, its probability (0 to 1), and the probability of every class, most probable first.

    >>> Prediction("cat", 0.9, {"cat": 0.9, "dog": 0.1}).probabilities["dog"]
    0.1
    """

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class PredictRow:
    """One image of a `predict` command. `prediction` is None for an unreadable image; `error` then gives the reason."""

    path: str
    prediction: Prediction | None
    error: str = ""


@dataclass(frozen=True)
class Tally:
    """Totals of many predictions: number of images per label ("unsure" included), and number of unreadable images."""

    labels: dict[str, int]
    failed: int
