"""Learner and predictions of a head on cached features. The layers of the head are defined in `models/head.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.torch_core import TensorCategory, set_seed
from torch import nn

from ..core import TrainingSettings
from ..data import Row
from ..evaluation import Predictions
from ..models import copy_to_device, to_network_input
from .callbacks.distillation import Distillation, soften
from .feature_codec import decode_tensors, to_tensors
from .features import Features, SplitFeatures
from .loaders import split_batches
from .optim import build_adam
from .phase import OpenPhase
from .read_ahead import read_ahead
from .recording import epoch_metrics, record_on_device

HEAD_BATCH_VALID = 4096  # features in a batch of validation
HEAD_BATCH, MIN_STEPS = 512, 50  # features in a batch, steps per epoch; see docs/benchmarks.md, "Head"


@contextmanager
def open_head(learn: Learner, features: Features, settings: TrainingSettings, soft: SplitFeatures | None = None) -> Iterator[OpenPhase]:
    """Open a Learner of the head on cached features; it shares the head with the model of `learn`. `soft` are a teacher's log-probabilities `[c]`."""
    set_seed(settings.seed)  # loaders draw their seeds; computing features draws numbers, reading them does not
    head, device = learn.model[1], learn.dls.device
    loaders = DataLoaders(
        FeatureLoader(features.train, choose_head_batch(len(features.train), settings.bs), True, device, soft=soft),
        FeatureLoader(features.valid, HEAD_BATCH_VALID, False, device),
        device=device,
    )
    head_learner = Learner(loaders, head, learn.loss_func, build_adam, metrics=epoch_metrics(), path=learn.path, model_dir=learn.model_dir)
    head_learner.add_cbs([] if soft is None else [Distillation()])
    with use_byte_dropout(head, device):
        yield OpenPhase(record_on_device(head_learner), cost=features.cost, features=features)


@contextmanager
def use_byte_dropout(head: nn.Sequential, device: torch.device) -> Iterator[None]:
    """Replace the dropout layers of a head on a CPU by `ByteDropout` while it trains; see docs/benchmarks.md, "Head"."""
    replaced = {i: module for i, module in enumerate(head) if type(module) is nn.Dropout and device.type == "cpu"}
    for i, dropout in replaced.items():
        head[i] = ByteDropout(dropout.p)
    try:
        yield
    finally:
        for i, dropout in replaced.items():
            head[i] = dropout


class ByteDropout(nn.Module):
    """Dropout from one random byte per value, by NumPy's seeded generator.

    The probability is rounded to a multiple of 1/256; 0.25 and 0.5 are exact.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.least = round(256 * p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.least:
            return x
        drawn = torch.frombuffer(bytearray(np.random.bytes(x.numel())), dtype=torch.uint8).view(x.shape)
        return x * (drawn >= self.least) * (256 / max(1, 256 - self.least))


@torch.inference_mode()
def predict_from_features(features: SplitFeatures, head: nn.Module, rows: Sequence[Row], classes: Sequence[str]) -> Predictions:
    """Predict the images `rows` from their features. With several views, log-probabilities are averaged over the views.

    float16 features have a precision of 11 bits, so predictions differ slightly from those of the whole model.
    """
    head.eval()
    device = next(head.parameters()).device
    batches = split_batches(torch.arange(len(features)), HEAD_BATCH_VALID)
    log_probabilities = torch.cat([head(features[batch].to(device)).log_softmax(dim=1).cpu() for batch in batches])
    views = log_probabilities.view(-1, len(rows), log_probabilities.shape[1])
    return Predictions(rows, classes, views.mean(dim=0).log_softmax(dim=1).numpy(), features.labels[: len(rows)].numpy())


def choose_head_batch(count: int, bs: int) -> int:
    """Return the batch size of the head for `count` features: at least `bs`, at most HEAD_BATCH if an epoch has MIN_STEPS steps.

    >>> choose_head_batch(10_000, bs=64)
    200
    """
    return max(2, bs, min(HEAD_BATCH, count // MIN_STEPS))  # BatchNorm needs two


class FeatureLoader(DataLoader):
    """Batches of cached features: (`[b, ...]` float32, `[b]` class index). An epoch has `count` items, by default all.

    With `soft`, log-probabilities `[c]` of a teacher for the same items, a batch is (`[b, ...]`, softened probabilities `[b, c]`, `[b]` class index).

    Features are kept on a GPU if there is room for them. Otherwise they are read by index one batch at a time; for a GPU, and if `ahead` is true also
    for a CPU, by a second thread.
    """

    ahead: ClassVar[bool] = False

    def __init__(
        self, features: SplitFeatures, bs: int, shuffle: bool, device: torch.device, count: int | None = None, soft: SplitFeatures | None = None
    ) -> None:
        self.features, count = features, count or len(features)
        self.placed = features.place(device)
        self.soft = soft
        self.placed_soft = soft.place(device) if soft is not None and self.placed else None
        super().__init__(range(count), bs=min(bs, count), shuffle=shuffle, drop_last=shuffle, num_workers=0, device=device)

    def choose_items(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the items of an epoch `[n]` for its shuffled indices."""
        return samples

    def create_batches(self, samps: Iterable[Any]) -> Iterator[tuple[torch.Tensor, ...]]:
        items = self.choose_items(torch.tensor(list(samps), dtype=torch.long))
        labels = self.features.labels[items]
        if self.placed:
            items, labels = copy_to_device(items, self.device), copy_to_device(labels, self.device)
        pairs = zip(split_batches(items, self.bs), split_batches(labels, self.bs), strict=True)
        batches = [batch for batch in pairs if len(batch[0]) == self.bs or not self.drop_last]
        for (chosen, _), (*encoded, targets) in zip(batches, self._read_batches(batches), strict=True):
            soft = () if self.soft is None else (self._read_soft(self.soft, chosen),)
            yield to_network_input(decode_tensors(*encoded)), *soft, TensorCategory(targets)

    def _read_batches(self, batches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the encoded features and the labels of each batch, on the loader's device."""
        if placed := self.placed:
            return ((*(part[items] for part in placed), labels) for items, labels in batches)
        if self.ahead or self.device.type != "cpu":
            return read_ahead(self._read_batch, batches, self.device)
        return map(self._read_batch, batches)

    def _read_soft(self, soft: SplitFeatures, items: torch.Tensor) -> torch.Tensor:
        """Return the softened probabilities of a teacher for some items, `[b, c]`, on the loader's device."""
        if self.placed_soft:
            return soften(decode_tensors(*(part[items] for part in self.placed_soft)))
        return soften(copy_to_device(soft[items.cpu()], self.device))

    def _read_batch(self, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        items, labels = batch
        return *to_tensors(self.features.read(items)), labels
