"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

from fastai.callback.core import Callback
from timm.utils.model_ema import ModelEmaV3

DECAY = 0.998  # with warm-up, so that short trainings forget their start


class MovingAverage(Callback):
    """Validate an exponential moving average of the weights (timm's ModelEmaV3), then continue with the weights themselves.

    `KeepEpoch` runs while the average is in place, so the kept epoch is an average.
    """

    order = 62  # after KeepEpoch, which copies the validated weights

    def before_fit(self) -> None:
        self.trained: dict[str, Any] | None = None
        self.average = ModelEmaV3(self.learn.model, decay=DECAY, use_warmup=True)
        self.updates = 0  # fewer than batches with gradient accumulation

    def after_step(self) -> None:
        self.average.update(self.learn.model, step=self.updates)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.module.load_state_dict(state["average"])
        self.updates = state.get("updates", self.learn.train_iter)  # earlier versions counted batches

    def before_validate(self) -> None:
        self.trained = copy.deepcopy(self.learn.model.state_dict())
        self.learn.model.load_state_dict(self.average.module.state_dict())

    def after_epoch(self) -> None:
        if self.trained:  # the finder's epochs have no validation
            self.learn.model.load_state_dict(self.trained)
