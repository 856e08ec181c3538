"""Keep the best epoch; stop early, or at a loss that is not finite."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import TrackerCallback

from ...core.metrics import METRICS, VALID_LOSS


class StopAtNan(Callback):
    """Ends a fit whose loss is no finite number any more, for nothing that follows would be one."""

    order = 63  # before a checkpoint could be made of it
    run_valid = False

    def before_fit(self) -> None:
        self.step = 0

    def after_batch(self) -> None:
        if not torch.isfinite(self.loss):
            self.step = self.train_iter
            raise CancelFitException


class KeepBest(TrackerCallback):
    """Ends the fit with the weights of the best epoch, and ends it early after `patience` epochs without a better one.

    fastai's SaveModelCallback and EarlyStoppingCallback do this too, but print to stdout, where `--json` writes.
    """

    order = 61

    def __init__(self, metric: str, patience: int | None, point: float | None = None) -> None:
        lower_is_better = metric == VALID_LOSS or not METRICS[metric].higher_is_better
        super().__init__(monitor=metric, comp=np.less if lower_is_better else np.greater)
        self.metric, self.patience, self.point = metric, patience, point
        self.best_epoch, self.state, self.epochs = 0, None, 0

    def before_fit(self) -> None:
        super().before_fit()
        self.best_epoch, self.state, self.epochs = 0, None, 0
        if self.point is not None:  # what is there already is to be beaten
            self.best, self.state = self.point, copy.deepcopy(self.learn.model.state_dict())

    def after_epoch(self) -> None:
        if not self.recorder.values[-1]:  # it was done before an interruption
            return
        super().after_epoch()
        self.epochs += 1
        if self.new_best or self.state is None:
            self.best_epoch, self.state = self.epochs, copy.deepcopy(self.learn.model.state_dict())
        elif self.patience and self.epochs - self.best_epoch >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        if self.state is not None:
            self.learn.model.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        return {"best": float(self.best), "best_epoch": self.best_epoch, "epochs": self.epochs, "state": self.state or {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.epochs, self.state = state["best"], state["best_epoch"], state["epochs"], state["state"] or None
