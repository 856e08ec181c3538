"""Losses of the training steps, for callbacks of the user that plot them."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback
from fastai.learner import Recorder


class ReadLosses(Callback):
    """Replace the recorded losses of an epoch, which are on the device, by numbers: matplotlib cannot read tensors on a GPU."""

    order = Recorder.order + 1
    run_valid = False

    def after_train(self) -> None:
        losses = self.recorder.losses
        recorded = [loss for loss in losses if isinstance(loss, torch.Tensor)]
        if recorded:
            losses[len(losses) - len(recorded) :] = torch.stack(recorded).tolist()  # the host waits once
