"""Predictions of a whole network for labelled images, in the precision of frozen forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastai.data.core import DataLoaders
from torch import nn

from ..core import OnEvent, Settings
from ..data import Row
from ..evaluation import Predictions, predictions
from .amp import FrozenBody, choose_pass_precision
from .loaders import BATCH, plain_loader


def predict_rows(model: nn.Sequential, dls: DataLoaders, rows: Sequence[Row], classes: Sequence[str], settings: Settings, on_event: OnEvent) -> Predictions:
    """Run a network (body and head) on the plain images of `rows`.

    The body computes in the precision of feature extraction, so that predictions equal those from cached features up to their rounding.
    """
    if settings.amp == "fp16" and dls.device.type != "cuda":
        settings = replace(settings, amp="auto")  # a run of another machine
    precision = choose_pass_precision(model[0], dls.device, settings, (3, settings.size, settings.size))
    network = nn.Sequential(FrozenBody(model[0], precision), model[1])
    return predictions.predict_loader(network, plain_loader(dls, rows, min(settings.bs, BATCH)), rows, classes, on_event)
