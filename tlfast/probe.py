"""Partial fine-tuning: the frozen backbone is run once an augmented view, and only the head trains, on the stored features."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from .data.loaders import TensorLoader, augmented_loader, plain_loader
from .data.table import ImageTable
from .fitting import PhasePlan, fit_phase
from .learner import metrics
from .results import Event, OnEvent, Pass, Phase
from .settings import Settings

BATCH = 256  # images a forward pass; without gradients the memory for it is small
HEAD_BATCH_VALID = 4096
ADAPTING_BATCHES = 40  # for BatchNorm; more change the statistics little


@dataclass(frozen=True)
class Features:
    """The backbone's output for the train part, views after one another, and for the valid part."""

    train: torch.Tensor  # [v * n, d] float16
    train_labels: torch.Tensor  # [v * n]
    valid: torch.Tensor  # [m, d] float16
    valid_labels: torch.Tensor  # [m]
    cost: Pass


def extract(body: nn.Module, dls: DataLoaders, table: ImageTable, settings: Settings, on_event: OnEvent) -> Features:
    """Run the backbone over the train part, once for each view, and over the valid part.

    The first view is the plain image, as it will be seen when judged: measured on seedlings, features of augmented views alone cost seven
    points of accuracy. The body is in eval mode, so that its BatchNorm statistics stay as they were.
    """
    set_seed(settings.seed, reproducible=True)
    body.eval()
    loaders = [plain_loader(dls, table.part("train"), BATCH)]
    if settings.augment != "none":
        loaders += [augmented_loader(dls, BATCH)] * (settings.views - 1)
    loaders.append(plain_loader(dls, table.part("valid"), BATCH))
    total = sum(loader.n for loader in loaders)
    parts, done, started = [], 0, time.perf_counter()
    for loader in loaders:
        features, labels = [], []
        for x, y in loader:
            features.append(_forward(body, x))
            labels.append(y.as_subclass(torch.Tensor).cpu())
            done += len(y)
            on_event(Event("backbone: features", done, total))
        parts.append((torch.cat(features), torch.cat(labels)))
    train, valid = parts[:-1], parts[-1]
    cost = Pass(total, time.perf_counter() - started)
    return Features(torch.cat([f for f, _ in train]), torch.cat([y for _, y in train]), *valid, cost)


@torch.no_grad()
def adapt_batchnorm(body: nn.Module, dls: DataLoaders, settings: Settings, on_event: OnEvent) -> None:
    """Re-estimate the body's BatchNorm statistics on training batches, before its layers are to train (Li et al. 2016, arXiv 1603.04779).

    When all layers train, BatchNorm uses the batch's own statistics; a head fitted to features made with ImageNet's would be thrown back to
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
    total = min(ADAPTING_BATCHES, len(dls.train))
    for done, (x, _) in enumerate(islice(dls.train, total), start=1):
        body(x.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last))
        on_event(Event("backbone: statistics", done, total))
    body.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.inference_mode()
def _forward(body: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """`[b, 3, h, w]` -> `[b, d]` float16 on the CPU; fastai's tensor subclass is left behind, its dispatch costs time."""
    return body(x.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last)).half().cpu()


def train_head(learn: Learner, features: Features, epochs: int, settings: Settings, on_event: OnEvent) -> Phase:
    """Train the head of `learn` on stored features, by a fastai Learner of its own; it is the same head, so `learn` has it at once."""
    head, device = learn.model[1], learn.dls.device
    loaders = DataLoaders(
        TensorLoader(features.train, features.train_labels, settings.bs, True, device),
        TensorLoader(features.valid, features.valid_labels, HEAD_BATCH_VALID, False, device),
        device=device,
    )
    head_learner = Learner(loaders, head, learn.loss_func, metrics=metrics(), path=learn.path, model_dir=learn.model_dir)
    return replace(fit_phase(head_learner, PhasePlan("head", epochs), settings, on_event), features=features.cost)
