"""Head of a classifier: the layers from features to logits."""

from __future__ import annotations

import torch
from fastai.vision.learner import create_head
from torch import nn

HIDDEN: dict[str, list[int]] = {"fastai": [512], "linear": []}  # kind of head -> widths of the hidden layers


def build_head(body: nn.Module, classes: int, size: int, kind: str = "fastai") -> nn.Module:
    """Return a head for the features of a body, `[b, d]` -> logits `[b, c]`: BatchNorm and dropout before each linear layer, ReLU between two.

    `kind` is a key of HIDDEN. The layers of a linear head can be merged into a single one.
    """
    head: nn.Module = create_head(count_features(body, size), classes, lin_ftrs=HIDDEN[kind], pool=False)
    return head


@torch.inference_mode()
def count_features(body: nn.Module, size: int) -> int:
    """Return d, the number of features of a body, measured by a forward pass at `size` pixels.

    timm's `num_features` differs from it in networks with hidden layers before the classifier.
    """
    training = body.training
    features: torch.Tensor = body.eval()(torch.zeros(1, 3, size, size, device=next(body.parameters()).device))
    body.train(training)
    return features.shape[1]
