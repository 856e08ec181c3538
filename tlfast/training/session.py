"""Session: the objects that the phases of one training share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import set_seed

from ..core import Journal, OnEvent, Settings
from ..data import ImageTable, Preprocessing, Store
from ..models import pretrained
from ..models.teacher import Ensemble
from .loaders import build_loaders


@dataclass(frozen=True)
class Session:
    """One training: its images, weights and Learner, the journal for resuming, and the listener for events.

    `store` holds decoded images; None if images are read from their files. `learn.model` is `nn.Sequential(body, head)`.
    """

    table: ImageTable
    store: Store | None
    weights: pretrained.Weights
    preprocessing: Preprocessing
    learn: Learner
    journal: Journal
    on_event: OnEvent
    callbacks: Sequence[Callback] = ()  # of the user, for every phase
    teacher: Ensemble | None = None  # of `--teacher`

    @property
    def on_disk(self) -> bool:
        """Whether new features and activations are cached on disk for later runs."""
        return bool(self.store and self.store.cached and self.store.writable)

    def use_batch_size(self, settings: Settings) -> None:
        """Build the Learner's loaders again if their batch size is not that of the settings: `--bs auto`, or a batch that was halved."""
        if self.learn.dls.train.bs != min(settings.bs, len(self.table.part("train"))):
            set_seed(settings.seed)  # from which the loaders shuffle, as in `prepare`: a resumed training has the same batches
            self.learn.dls = self.build_loaders(settings)

    def build_loaders(self, settings: Settings) -> DataLoaders:
        """Return new loaders of the same images for other settings. The pixels of the store stay where they are, such as on a GPU."""
        pixels = getattr(self.learn.dls.train, "pixels", None)
        return build_loaders(self.table, self.preprocessing, settings, self.learn.dls.device, self.store, pixels)
