"""Mixup without waiting for the device."""

from __future__ import annotations

import fastai.callback.mixup
import torch

from ...models import copy_to_device


class MixUp(fastai.callback.mixup.MixUp):
    """fastai's MixUp (Zhang et al. 2018, arXiv 1710.09412); its random numbers are copied to a GPU from pinned memory."""

    def before_batch(self) -> None:
        count, device = len(self.y), self.xb[0].device
        shares = self.distrib.sample((count,))
        self.lam = copy_to_device(torch.maximum(shares, 1 - shares), device)
        order = copy_to_device(torch.randperm(count), device)
        self.yb1 = tuple(y[order] for y in self.yb)
        self.learn.xb = tuple(torch.lerp(x[order], x, self.lam.view(-1, *[1] * (x.ndim - 1))) for x in self.xb)
        if not self.stack_y:
            self.learn.yb = tuple(torch.lerp(shuffled, y, self.lam.view(-1, *[1] * (y.ndim - 1))) for shuffled, y in zip(self.yb1, self.yb, strict=True))
