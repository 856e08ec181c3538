"""Networks that teach another one: they read its input, and give log-probabilities of its classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate

from ..data import Preprocessing
from .build import to_network_input
from .fuse_bn import fuse_bn


class Teacher(nn.Module):
    """A trained network that reads the input of another one: `[b, 3, h, w]` -> log-probabilities `[b, c]`, without gradients.

    Args:
        network: body and head, in eval mode.
        own: preprocessing of the network.
        given: preprocessing of the input. It is undone, and images are resized to the size of the network.
        order: index of each class of the student among the classes of the network, `[c]`.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    order: torch.Tensor

    def __init__(self, network: nn.Sequential, own: Preprocessing, given: Preprocessing, order: Sequence[int]) -> None:
        super().__init__()
        body, head = network
        self.network, self.size = nn.Sequential(fuse_bn(body), head).eval(), own.size
        mean, std, own_mean, own_std = (torch.tensor(values).view(1, 3, 1, 1) for values in (given.mean, given.std, own.mean, own.std))
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)
        self.register_buffer("order", torch.tensor(order))

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = to_network_input(x) * self.scale + self.shift
        if x.shape[-1] != self.size:
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        logits: torch.Tensor = self.network(to_network_input(x))
        return logits[:, self.order].float().log_softmax(dim=1)


class Ensemble(nn.Module):
    """One or more teachers, whose probabilities are averaged: `[b, 3, h, w]` -> log-probabilities `[b, c]`. `runs` are the ids of their runs."""

    def __init__(self, teachers: Sequence[Teacher], runs: Sequence[str]) -> None:
        super().__init__()
        self.teachers, self.runs = nn.ModuleList(teachers), tuple(runs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([teacher(x) for teacher in self.teachers]).logsumexp(dim=0) - math.log(len(self.teachers))
