"""Predictions for images, and their totals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the likeliest class, its probability (0 to 1), and every class's, likeliest first."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class PredictRow:
    """One image of a `predict` command: its prediction, or why there is none."""

    path: str
    prediction: Prediction | None
    error: str = ""


@dataclass(frozen=True)
class Tally:
    """What many predictions come to: images for each label ("unsure" among them), and how many could not be read."""

    labels: dict[str, int]
    failed: int
