"""Build the fastai Learner of a training and its parameter groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AccumMetric
from fastai.vision.learner import model_meta, vision_learner
from torch import nn

from ..core.metrics import EPOCH_METRICS, METRICS, Counts, Metric, confusion_matrix
from ..core.settings import Settings
from ..models import pretrained, stages
from ..models.build import build_body, build_head
from .optim import build_adam


def build_learner(dls: DataLoaders, settings: Settings, weights: pretrained.Weights, class_weights: torch.Tensor | None = None) -> Learner:
    """Return a fastai Learner on a timm backbone, its parameters in three groups: lower body, upper body, head.

    `vision_learner` is given the built body rather than a timm name: for a name it ignores `weights` in silence and cuts the layers between
    pooling and classifier off some networks (mobilenetv3, efficientvit, convnext...). Its argument `cut` goes nowhere; `model_meta` is heard.
    """
    body = build_body(weights, settings.size)

    def arch(pretrained: bool) -> nn.Module:
        return body

    model_meta[arch] = {"cut": lambda model: model, "split": split_parameters}
    try:
        learn = vision_learner(
            dls,
            arch,
            custom_head=build_head(body, dls.c, settings.size),
            normalize=False,
            pretrained=False,
            n_out=dls.c,
            loss_func=CrossEntropyLossFlat(weight=class_weights, label_smoothing=settings.label_smoothing),
            opt_func=build_adam,
            metrics=epoch_metrics(),
        )
    finally:
        del model_meta[arch]
    learn.model.to(dls.device)
    return learn


def epoch_metrics() -> list[AccumMetric]:
    """Return fastai metrics for every metric of `EPOCH_METRICS`, in order."""
    return [AccumMetric(_epoch_metric(METRICS[name]), dim_argmax=-1, name=name) for name in EPOCH_METRICS]


def _epoch_metric(metric: Metric) -> Callable[[torch.Tensor, torch.Tensor], float]:
    def compute(predicted: torch.Tensor, labels: torch.Tensor) -> float:
        guess, truth = predicted.numpy(), labels.numpy()
        return float(metric.function(Counts(confusion_matrix(truth, guess, int(max(guess.max(), truth.max())) + 1))))

    return compute


def split_parameters(model: nn.Sequential, whole: nn.Module | None = None) -> list[list[nn.Parameter]]:
    """Divide a model into lower body, upper body and head, by the depth that timm's own `group_matcher` gives each parameter.

    Where the body is but a part of a network, `whole` is that network.
    """
    body, head = model
    named = dict(body.named_parameters())
    found = stages.group_layers(whole or body, coarse=False) or [[name] for name in named]
    layers = [own for layer in found if (own := [name for name in layer if name in named])]
    half = (len(layers) + 1) // 2
    lower, upper = ([named[name] for layer in part for name in layer] for part in (layers[:half], layers[half:]))
    return [lower, upper, list(head.parameters())]


# Weights
