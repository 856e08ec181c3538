"""Keep the last or the best epoch, stop without improvement, and stop at a loss that is not finite."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.callback.tracker import TrackerCallback

from ...core.metrics import METRICS, VALID_LOSS

CHECKED_EVERY = 50  # steps on a GPU: reading the loss makes the host wait


class StopAtNan(Callback):
    """Stop the fit when the loss is NaN or infinite; `step` is the first such training step, 0 if it did not happen.

    On a CPU the fit stops at this step, on other devices within CHECKED_EVERY steps.
    """

    order = 63  # before a checkpoint is written
    run_valid = False

    def before_fit(self) -> None:
        self.step = 0
        self.found = torch.zeros((), dtype=torch.long, device=self.dls.device)
        self.every = 1 if self.dls.device.type == "cpu" else CHECKED_EVERY

    def after_batch(self) -> None:
        finite = torch.isfinite(self.loss.detach().as_subclass(torch.Tensor))
        self.found = torch.where(finite | (self.found > 0), self.found, self.train_iter)
        if self.train_iter % self.every == 0:
            self.check()

    def after_train(self) -> None:
        self.check()

    def check(self) -> None:
        """Stop if a loss was not finite."""
        self.step = int(self.found)
        if self.step:
            raise CancelFitException


class KeepEpoch(TrackerCallback):
    """Restore the weights of the best or of the last epoch after the fit, and stop after `patience` epochs without improvement.

    An epoch must be at least as good as `to_beat` if it is given; `kept_epoch` is 0 if none is. `patience` counts from the best epoch of this fit.
    After a loss that is not finite, the last epoch is the last complete one. fastai's SaveModelCallback and EarlyStoppingCallback print to stdout,
    which `--json` needs.
    """

    order = 61

    def __init__(self, metric: str, patience: int | None, keeps_best: bool = True, to_beat: float | None = None) -> None:
        lower_is_better = metric == VALID_LOSS or not METRICS[metric].higher_is_better
        super().__init__(monitor=metric, comp=np.less if lower_is_better else np.greater)
        self.metric, self.patience, self.keeps_best, self.to_beat = metric, patience, keeps_best, to_beat
        self.reset_epochs()

    def reset_epochs(self) -> None:
        self.best_epoch, self.kept_epoch, self.epochs = 0, 0, 0
        self.own_best, self.own_epoch = math.nan, 0  # of this fit, also below `to_beat`
        self.state: dict[str, Any] | None = None

    def before_fit(self) -> None:
        super().before_fit()
        self.reset_epochs()
        if self.to_beat is not None:
            self.best, self.state = self.to_beat, copy.deepcopy(self.learn.model.state_dict())

    def after_epoch(self) -> None:
        if not self.recorder.values[-1]:  # complete before an interruption
            return
        super().after_epoch()
        self.epochs += 1
        value = self.recorder.values[-1][self.idx]
        ties = not self.best_epoch and self.to_beat is not None and not math.isnan(value) and not self.comp(self.to_beat, value)
        improved = self.new_best or self.state is None or ties
        if improved:
            self.best_epoch = self.epochs
        if improved or (self.best_epoch and not self.keeps_best):
            self.kept_epoch, self.state = self.epochs, copy.deepcopy(self.learn.model.state_dict())
        if not math.isnan(value) and (math.isnan(self.own_best) or self.comp(value, self.own_best)):
            self.own_best, self.own_epoch = float(value), self.epochs
        if self.patience and self.epochs - self.own_epoch >= self.patience:
            raise CancelFitException

    def after_fit(self) -> None:
        if self.state is not None:
            self.learn.model.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        epochs = {"best_epoch": self.best_epoch, "kept_epoch": self.kept_epoch, "epochs": self.epochs}
        return {"best": float(self.best), "own_best": self.own_best, "own_epoch": self.own_epoch, **epochs, "state": self.state or {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.epochs, self.state = state["best"], state["best_epoch"], state["epochs"], state["state"] or None
        self.own_best, self.own_epoch = state.get("own_best", state["best"]), state.get("own_epoch", state["best_epoch"])  # which earlier versions had not
        self.kept_epoch = state.get("kept_epoch", self.best_epoch)  # earlier versions kept the best epoch
