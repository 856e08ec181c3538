"""Ways to train that a user may ask for, as fastai callbacks: a moving average of the weights, growing image sizes."""

from __future__ import annotations

from fastai.callback.core import Callback

from ...models.build import to_network_input


class NetworkInput(Callback):
    """Hands the network plain tensors, see `learner.network_input`."""

    order = 90  # after all that change the images, such as MixUp

    def before_batch(self) -> None:
        self.learn.xb = tuple(to_network_input(x) for x in self.xb)
