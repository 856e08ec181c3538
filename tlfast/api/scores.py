"""Metrics of a run on one split, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from ..core.metrics import FIGURE_TITLES, flatten_metrics
from .display import format_table, wrap_html


class Score(NamedTuple):
    """The value of a metric and its bootstrap 95 % interval, from `low` to `high`; None without an interval."""

    value: float
    low: float | None
    high: float | None

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class Scores(Mapping[str, Score]):
    """The metrics of one split by name, such as `scores["macro_f1"].value`. `per_class` holds precision, recall, F1 and support of each class.

    Attributes:
        split: valid or test.
        details: all values as in `metrics.json`, such as the calibration.
    """

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.split, self.details = str(details.get("split", "valid")), dict(details)
        intervals = details.get("intervals", {})  # runs of early versions have none
        values = flatten_metrics(details)
        known = [name for name in FIGURE_TITLES if values.get(name) is not None]
        self._scores = {name: Score(values[name], *(intervals.get(name) or (None, None))) for name in known}

    def __getitem__(self, name: str) -> Score:
        if name not in self._scores:
            raise KeyError(f"{name}; there are: {', '.join(self._scores)}")
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def per_class(self) -> pd.DataFrame:
        """A DataFrame with precision, recall, F1 and support of each class."""
        return pd.DataFrame(self.details["per_class"]).set_index("name")

    def __repr__(self) -> str:
        lines = [f"{FIGURE_TITLES[name]:24}{_describe(score)}" for name, score in self.items()]
        return "\n".join([f"{self.split} split", *lines])

    def _repr_html_(self) -> str:
        rows = [(FIGURE_TITLES[name], *score) for name, score in self.items()]
        return wrap_html(format_table((f"{self.split} split", "value", "95 % from", "to"), rows))


def _describe(score: Score) -> str:
    interval = f"  (95 %: {score.low:.4f} to {score.high:.4f})" if score.low is not None else ""
    return f"{score.value:.4f}{interval}"
