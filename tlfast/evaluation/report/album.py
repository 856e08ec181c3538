"""Album of thumbnails: each image is embedded in a page once, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .inputs import RankedPredictions
from .thumbnails import make_thumbnail

BUDGET = 4_500_000  # characters of thumbnails in the album; with all other parts but the table of images a page stays below 8 MB


class Album:
    """Thumbnails of a page with their predictions.

    Attributes:
        entries: the images added so far, with the keys picture ("" for an unreadable image), name, actual, predicted, probability and loss.
    """

    def __init__(self, predictions: RankedPredictions, classes: Sequence[str]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._predictions, self._classes = predictions, classes
        self._places: dict[int, int] = {}
        self._budget = BUDGET

    def add(self, i: int) -> int | None:
        """Add image `i` of the predictions and return its index in `entries`; None if the budget does not suffice."""
        if i not in self._places:
            picture = make_thumbnail(self._predictions.paths[i]) if self._budget > 0 else None
            if picture is None or len(picture) > self._budget:
                self._budget = 0  # so that no further image is decoded in vain
                return None
            self._budget -= len(picture)
            self._places[i] = len(self.entries)
            self.entries.append({"picture": picture, **self._describe(i)})
        return self._places[i]

    def add_first(self, candidates: Iterable[int], most: int) -> list[int]:
        """Add the first `most` candidates; return the indices in `entries` of those that fit the budget."""
        return [place for i in islice(candidates, most) if (place := self.add(int(i))) is not None]

    def _describe(self, i: int) -> dict[str, Any]:
        predictions = self._predictions
        return {
            "name": Path(predictions.paths[i]).name,
            "actual": self._classes[predictions.actual[i]],
            "predicted": self._classes[predictions.predicted[i]],
            "probability": round(float(predictions.confidence[i]), 4),
            "loss": round(float(predictions.losses[i]), 3),
        }
