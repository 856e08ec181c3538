"""Adaptation of BatchNorm statistics before the layers of a backbone train."""

from __future__ import annotations

from itertools import islice

import torch
from fastai.data.load import DataLoader
from fastai.torch_core import set_seed
from torch import nn

from ..core import OnEvent, Progress, TrainingSettings
from ..models import to_network_input
from .amp import autocast_passes

ADAPTING_BATCHES = 40  # more batches change the BatchNorm statistics little


@torch.no_grad()
def adapt_batchnorm(body: nn.Module, loader: DataLoader, settings: TrainingSettings, precision: str, on_event: OnEvent) -> None:
    """Re-estimate a network's BatchNorm statistics on training batches, before its layers train (Li et al. 2016, arXiv 1603.04779).

    Trained layers use the statistics of the batch. A head that was fitted to features with ImageNet statistics would fall to chance at the first
    step; see docs/benchmarks.md, "BatchNorm". The passes run in `precision`. Weights do not change; a network without BatchNorm is left unchanged.
    """
    norms = [module for module in body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    set_seed(settings.seed)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative average over all batches
    body.train()
    total = min(ADAPTING_BATCHES, len(loader))
    try:
        for done, (x, _) in enumerate(islice(loader, total), start=1):
            with autocast_passes(x.device, precision):
                body(to_network_input(x))
            on_event(Progress("backbone: statistics", done, total))
    finally:  # memory may run out, and the phase starts again
        body.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
