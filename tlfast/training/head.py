"""Partial fine-tuning: the backbone stays frozen, and only the head trains, on the backbone's stored features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.torch_core import TensorCategory, set_seed
from torch import nn

from ..core.events import OnEvent, Progress
from ..core.settings import Settings
from ..data.types import Row
from ..evaluation.types import Predictions
from ..models.build import to_network_input
from .features import Features, Part
from .learner import epoch_metrics
from .optim import build_adam
from .phase import OpenPhase

HEAD_BATCH_VALID = 4096
# A head's step is so small that what surrounds it costs more. In batches of 512 it learns FER2013 no worse than in 64 (0.489 against 0.480) and
# seedlings as well (0.797, 0.795), in little over half the time; a small set needs its steps more than it needs speed.
HEAD_BATCH, LEAST_STEPS = 512, 50  # features; steps an epoch
ADAPTING_BATCHES = 40  # for BatchNorm; more change the statistics little


@torch.no_grad()
def adapt_batchnorm(body: nn.Module, loader: DataLoader, settings: Settings, on_event: OnEvent) -> None:
    """Re-estimate a network's BatchNorm statistics on training batches, before its layers are to train (Li et al. 2016, arXiv 1603.04779).

    When they train, BatchNorm uses the batch's own statistics; a head fitted to features made with ImageNet's would be thrown back to
    chance by the first step (on digits from 0.91 to 0.19). The weights stay as they are; a network without BatchNorm is left alone.
    """
    norms = [module for module in body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    set_seed(settings.seed, reproducible=True)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches seen
    body.train()
    total = min(ADAPTING_BATCHES, len(loader))
    for done, (x, _) in enumerate(islice(loader, total), start=1):
        body(to_network_input(x))
        on_event(Progress("backbone: statistics", done, total))
    body.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@contextmanager
def open_head(learn: Learner, features: Features, settings: Settings) -> Iterator[OpenPhase]:
    """Open a Learner of the head on cached features. It is the head of `learn`, whose model it trains."""
    set_seed(settings.seed, reproducible=True)  # the loaders draw their own seeds; cached features draw nothing
    head, device = learn.model[1], learn.dls.device
    loaders = DataLoaders(
        FeatureLoader(features.train, choose_head_batch(len(features.train), settings.bs), True, device),
        FeatureLoader(features.valid, HEAD_BATCH_VALID, False, device),
        device=device,
    )
    head_learner = Learner(loaders, head, learn.loss_func, build_adam, metrics=epoch_metrics(), path=learn.path, model_dir=learn.model_dir)
    with use_byte_dropout(head, device):
        yield OpenPhase(head_learner, cost=features.cost, features=features)


@contextmanager
def use_byte_dropout(head: nn.Sequential, device: torch.device) -> Iterator[None]:
    """Let a head on a CPU drop its features by cheaper random numbers while it trains: torch's own took a quarter of a step."""
    places = [i for i, module in enumerate(head) if type(module) is nn.Dropout and device.type == "cpu"]
    kept = {i: head[i] for i in places}
    for i, dropout in kept.items():
        head[i] = ByteDropout(dropout.p)
    try:
        yield
    finally:
        for i, dropout in kept.items():
            head[i] = dropout


class ByteDropout(nn.Module):
    """Dropout by one random byte a value, from NumPy's seeded generator; the probability is one of 256 (a quarter and a half are exact)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.least = round(256 * p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.least:
            return x
        drawn = torch.frombuffer(bytearray(np.random.bytes(x.numel())), dtype=torch.uint8).view(x.shape)
        return x * (drawn >= self.least) * (256 / max(1, 256 - self.least))


@torch.inference_mode()
def predict_from_features(part: Part, head: nn.Module, rows: Sequence[Row], classes: Sequence[str]) -> Predictions:
    """Return what the whole model says of images, from their features, which hold 11 bits; of several views, the mean of the logarithms."""
    head.eval()
    device = next(head.parameters()).device
    said = torch.cat([head(part[block].to(device)).log_softmax(dim=1).cpu() for block in torch.arange(len(part)).split(HEAD_BATCH_VALID)])
    views = said.view(-1, len(rows), said.shape[1])
    return Predictions(rows, classes, views.mean(dim=0).log_softmax(dim=1).numpy(), part.labels[: len(rows)].numpy())


def choose_head_batch(count: int, bs: int) -> int:
    """Return how many of `count` features make a batch: `bs` at least, more where an epoch keeps LEAST_STEPS."""
    return max(bs, min(HEAD_BATCH, count // LEAST_STEPS))


class FeatureLoader(DataLoader):
    """Batches of stored features, taken by index a batch at a time: (`[b, d]` float32, `[b]` class index)."""

    def __init__(self, part: Part, bs: int, shuffle: bool, device: torch.device, count: int | None = None) -> None:
        self.part, count = part, count or len(part)
        super().__init__(range(count), bs=min(bs, count), shuffle=shuffle, drop_last=shuffle, num_workers=0, device=device)

    def create_batches(self, samps):
        for chosen in torch.tensor(list(samps)).split(self.bs):
            if len(chosen) == self.bs or not self.drop_last:
                yield self.part[chosen], TensorCategory(self.part.labels[chosen])
