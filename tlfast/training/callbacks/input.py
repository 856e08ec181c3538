"""Network input: plain tensors in the memory format that is fastest."""

from __future__ import annotations

from fastai.callback.core import Callback

from ...models import to_network_input


class NetworkInput(Callback):
    """Convert each batch by `models.build.to_network_input`."""

    order = 90  # after callbacks that change the images, such as MixUp

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_network_input(x) for x in self.xb)
