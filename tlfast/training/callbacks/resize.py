"""Progressive resizing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from torch.nn.functional import interpolate


class GrowingSize(Callback):
    """Train on smaller images first, each size for an equal share of the epochs; validate at the full size (Howard, fast.ai 2018)."""

    run_valid = False

    def __init__(self, sizes: Sequence[int], full: int) -> None:
        self.sizes = [*sizes, full]

    def before_batch(self) -> None:
        size = self.sizes[min(int(self.epoch / self.n_epoch * len(self.sizes)), len(self.sizes) - 1)]
        if size != self.xb[0].shape[-1]:
            self.learn.xb = (interpolate(self.xb[0].as_subclass(torch.Tensor), size=(size, size), mode="bilinear", antialias=True),)
