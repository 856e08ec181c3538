"""What a training works on: images, loaders, weights and a learner, built from its settings."""

from __future__ import annotations

from dataclasses import dataclass

from fastai.data.core import DataLoaders
from fastai.learner import Learner

from ..core.settings import Settings
from ..data import ImageTable, Store
from ..data.types import Stats
from ..models import pretrained
from .loaders import build_loaders


@dataclass(frozen=True)
class Session:
    """Everything that a training works on, built from its settings."""

    table: ImageTable
    store: Store | None
    weights: pretrained.Weights
    stats: Stats
    learn: Learner

    @property
    def on_disk(self) -> bool:
        """Whether what is made of the images is kept on disk, for later runs too."""
        return bool(self.store and self.store.kept)

    def loaders(self, settings: Settings) -> DataLoaders:
        """Return the loaders again, for other settings of the same images."""
        return build_loaders(self.table, settings, self.stats, self.learn.dls.device, self.store)
