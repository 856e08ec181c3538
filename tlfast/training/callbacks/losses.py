"""Losses of the training steps, for callbacks of the user that plot them."""

from __future__ import annotations

from collections.abc import Sequence

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
            losses[len(losses) - len(recorded) :] = stack_losses(recorded).tolist()  # the host waits once


def stack_losses(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return losses `[n]` on the device of the last one. Those of the batches that a resumed epoch skips are in main memory."""
    device = losses[-1].device
    return torch.stack([loss.to(device) for loss in losses])
