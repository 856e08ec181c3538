"""A loss term for the probabilities of a teacher."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from torch import nn

SHARE = 0.5  # of the loss; the rest is that of the labels
SOFT_TEMPERATURE = 2.0  # of teacher and student; see docs/benchmarks.md, "Distillation"


def soften(log_probabilities: torch.Tensor) -> torch.Tensor:
    """Return probabilities `[b, c]` at SOFT_TEMPERATURE."""
    return (log_probabilities / SOFT_TEMPERATURE).softmax(dim=1)


class Distillation(Callback):
    """Train on a teacher's probabilities, too: the mean of the usual loss and of the cross-entropy between teacher and student (Hinton et al. 2015).

    Args:
        teacher: network from a batch of images to log-probabilities. It runs in each step, on the images that the student sees. Without it, a batch
            has the softened probabilities as its second input, `[b, c]`.
    """

    order = 5  # after MixUp, before gradients are accumulated and before autocast
    run_valid = False

    def __init__(self, teacher: nn.Module | None = None) -> None:
        self.teacher = teacher

    def before_batch(self) -> None:
        if self.teacher is not None:
            self.soft = soften(self.teacher(self.x))
        else:
            self.learn.xb, self.soft = self.xb[:1], self.xb[1]

    def after_loss(self) -> None:
        predicted = (self.pred.as_subclass(torch.Tensor).float() / SOFT_TEMPERATURE).log_softmax(dim=1)
        distance = -(self.soft * predicted).sum(dim=1).mean() * SOFT_TEMPERATURE**2  # as large a gradient as at temperature 1
        self.learn.loss_grad = (1 - SHARE) * self.loss_grad + SHARE * distance
        self.learn.loss = self.learn.loss_grad.clone()
