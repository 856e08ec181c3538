"""The fastai Learner of a training: model, loss, optimizer, metrics and parameter groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.learner import model_meta, vision_learner
from torch import nn

from ..core import Settings, TrainingSettings
from ..data import ImageTable
from ..models import build_body, build_head, move_network, pretrained, stages
from .optim import build_adam
from .recording import epoch_metrics, record_on_device


def build_learner(dls: DataLoaders, settings: Settings, weights: pretrained.Weights, class_weights: torch.Tensor | None = None) -> Learner:
    """Return a fastai Learner of a timm backbone and a head, with three parameter groups: lower body, upper body, head.

    `class_weights` is `[c]`. Raises WeightsError if the weights cannot be loaded.

    `vision_learner` receives the built body instead of a timm name. For a name it ignores `weights`, and for some networks (mobilenetv3,
    efficientvit, convnext...) it drops the layers between pooling and classifier. It ignores its argument `cut`, so `model_meta` is used.
    """
    body = build_body(weights, settings.size)

    def arch(pretrained: bool) -> nn.Module:
        return body

    model_meta[arch] = {"cut": lambda model: model, "split": split_parameters}
    try:
        learn = vision_learner(
            dls,
            arch,
            custom_head=build_head(body, dls.c, settings.size, settings.head),
            normalize=False,
            pretrained=False,
            n_out=dls.c,
            loss_func=CrossEntropyLossFlat(weight=class_weights, label_smoothing=settings.label_smoothing),
            opt_func=build_adam,
            metrics=epoch_metrics(),
        )
    finally:
        del model_meta[arch]
    move_network(learn.model, dls.device)
    return record_on_device(learn)


def split_parameters(model: nn.Sequential, whole: nn.Module | None = None) -> list[list[nn.Parameter]]:
    """Return the parameters of the lower half of the body's layers, of the upper half, and of the head.

    Layers follow timm's `group_matcher`. If the body is a part of a network, `whole` is that network.
    """
    body, head = model
    parameters = dict(body.named_parameters())
    grouped = stages.group_layers(whole or body, coarse=False) or [[name] for name in parameters]
    layers = [names for layer in grouped if (names := [name for name in layer if name in parameters])]
    half = (len(layers) + 1) // 2
    lower, upper = ([parameters[name] for layer in part for name in layer] for part in (layers[:half], layers[half:]))
    return [lower, upper, list(head.parameters())]


def balance_classes(labels: Sequence[int], classes: int) -> torch.Tensor:
    """Return n / (c * count) for each class, `[c]`: scikit-learn's "balanced" weights.

    >>> balance_classes([0, 0, 0, 1], 2)
    tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
    return len(labels) / (classes * counts)


def compute_class_weights(table: ImageTable, settings: TrainingSettings, device: torch.device) -> torch.Tensor | None:
    """Return the weight of each class in the loss `[c]`, None with `--class-weights none`."""
    if settings.class_weights == "none":
        return None
    index = {label: i for i, label in enumerate(table.classes)}
    return balance_classes([index[row.label] for row in table.part("train")], len(index)).to(device)
