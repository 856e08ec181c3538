"""Head of a classifier: the layers from features to logits."""

from __future__ import annotations

import torch
from fastai.vision.learner import create_head
from torch import nn


def build_head(body: nn.Module, classes: int, size: int) -> nn.Module:
    """Return fastai's head for the features of a body: BatchNorm, dropout and two linear layers, `[b, d]` -> logits `[b, c]`."""
    head: nn.Module = create_head(count_features(body, size), classes, pool=False)
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
