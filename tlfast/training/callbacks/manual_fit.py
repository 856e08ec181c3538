"""Callbacks of the Learners that users fit by hand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from fastai.callback.core import Callback
from fastai.learner import Recorder
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


class KeepHistory(Callback):
    """Keep the values and rates of the last fit. The recorder forgets them when the Learner predicts, validates or searches a learning rate.

    Attributes:
        values: losses and metrics of each epoch, as in `Recorder.values`.
        rates: learning rate of the head at each step.
        last_rates: rate of each group of parameters after the last epoch.
    """

    order = Recorder.order + 1

    values: Sequence[Sequence[float]] = ()
    rates: Sequence[float] = ()
    last_rates: Sequence[float] = ()

    def after_epoch(self) -> None:
        if self.recorder.lrs and not hasattr(self, "lr_finder"):  # steps were taken
            self.values, self.rates = self.recorder.values, self.recorder.lrs  # lists that grow with the fit
            self.last_rates = [float(group["lr"]) for group in self.opt.hypers]
