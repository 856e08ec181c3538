"""Callbacks of the Learners that users fit by hand."""

from __future__ import annotations

from contextlib import ExitStack

from fastai.callback.core import Callback
from torch import nn

from ...models import share_cores


class KeepBatchNorm(Callback):
    """Keep the BatchNorm layers of the backbone in evaluation mode, with the statistics that the head was trained on.

    In training mode they take the statistics of each batch, which differ from those of the pretraining; the head then predicts at random until it
    has learned again. `learn.remove_cb(KeepBatchNorm)` lets them train.
    """

    run_valid = False

    def before_train(self) -> None:
        for module in self.model[0].modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


class ShareCores(Callback):
    """Let waiting threads sleep during a fit while other processes use the cores, as the trainings of tlfast do."""

    run_valid = False

    stack: ExitStack | None = None

    def before_fit(self) -> None:
        self.after_fit()  # an exception ended the fit before
        self.stack = ExitStack()
        self.stack.enter_context(share_cores(self.dls.device))

    def after_fit(self) -> None:
        if self.stack:
            self.stack.close()
        self.stack = None  # cannot be pickled with the Learner
