"""Ways to train that a user may ask for, as fastai callbacks: a moving average of the weights, growing image sizes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from timm.utils import ModelEmaV3
from torch.nn.functional import interpolate

from .core.settings import Settings
from .learner import network_input

DECAY = 0.998  # of the moving average; it warms up, so that short trainings forget their start


def asked_for(settings: Settings) -> list[Callback]:
    """Return the callbacks for the settings' ways to train all layers."""
    chosen: list[Callback] = []
    if settings.accumulate > 1:
        chosen.append(GradientAccumulation(settings.accumulate * settings.bs))
    if settings.sizes:
        chosen.append(GrowingSize([int(size) for size in settings.sizes.split(",")], settings.size))
    if settings.ema:
        chosen.append(MovingAverage())
    return chosen


class NetworkInput(Callback):
    """Hands the network plain tensors, see `learner.network_input`."""

    order = 90  # after all that change the images, such as MixUp

    def before_batch(self) -> None:
        self.learn.xb = tuple(network_input(x) for x in self.xb)


class GrowingSize(Callback):
    """Trains on smaller images first, each size for its share of the epochs; validates at the full size (Howard, fast.ai 2018)."""

    run_valid = False

    def __init__(self, sizes: list[int], full: int) -> None:
        self.sizes = [*sizes, full]

    def before_batch(self) -> None:
        size = self.sizes[min(int(self.epoch / self.n_epoch * len(self.sizes)), len(self.sizes) - 1)]
        if size != self.xb[0].shape[-1]:
            self.learn.xb = (interpolate(self.xb[0].as_subclass(torch.Tensor), size=(size, size), mode="bilinear", antialias=True),)


class MovingAverage(Callback):
    """Validates, and so keeps, an exponential moving average of the weights, timm's ModelEmaV3; training goes on with the weights themselves."""

    order = 62  # after KeepBest has taken its copy of what was validated

    def before_fit(self) -> None:
        self.trained = None
        self.average = ModelEmaV3(self.learn.model, decay=DECAY, use_warmup=True)

    def after_step(self) -> None:
        self.average.update(self.learn.model, step=self.train_iter)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.module.load_state_dict(state["average"])

    def before_validate(self) -> None:
        self.trained = copy.deepcopy(self.learn.model.state_dict())
        self.learn.model.load_state_dict(self.average.module.state_dict())

    def after_epoch(self) -> None:
        if self.trained:  # the finder's epochs validate nothing
            self.learn.model.load_state_dict(self.trained)
