"""Network input and targets: plain tensors, images in the memory format that is fastest."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from ...models import to_network_input


class NetworkInput(Callback):
    """Convert each batch by `models.build.to_network_input`, and its targets to plain tensors."""

    order = 90  # after callbacks that change the images, such as MixUp

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_network_input(x) for x in self.xb)
        self.learn.yb = tuple(y.as_subclass(torch.Tensor) for y in self.yb)
