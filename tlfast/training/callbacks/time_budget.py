"""Change the number of epochs of a running fit, so that it ends within its time budget."""

from __future__ import annotations

from fastai.callback.core import Callback, CancelFitException

from ...core import Journal, Note
from ..budget import Budget
from ..processes import broadcast
from .progress import ProgressCallback

CHANGE = 0.2  # share of the remaining epochs by which their number must be wrong to be changed


class KeepToBudget(Callback):
    """After each epoch, count again how many epochs end in time, from the duration of the last one.

    The fit must be started with `budget.most` epochs; it ends after `epochs` of them, or after the changed number. The one-cycle schedule continues
    at the position that the number of epochs gives.
    """

    order = 70  # after KeepEpoch, before checkpoints

    def __init__(self, budget: Budget, epochs: int, journal: Journal, progress: ProgressCallback) -> None:
        self.budget, self.epochs, self.journal, self.progress = budget, epochs, journal, progress

    def before_epoch(self) -> None:
        self.learn.n_epoch = self.epochs

    def after_epoch(self) -> None:
        done = self.epoch + 1
        if self.recorder.values[-1] and done < self.epochs:  # not an epoch from before an interruption
            self._recount(done, self.progress.rows[-1].seconds)
        if done >= self.epochs:
            raise CancelFitException

    def _recount(self, done: int, seconds: float) -> None:
        epochs = broadcast(self.budget.recount_epochs(self.journal.seconds, done, seconds))
        if abs(epochs - self.epochs) <= CHANGE * (self.epochs - done):
            return
        self.progress.on_event(Note(self.progress.phase, f"{epochs} epochs instead of {self.epochs} fit the time budget: the last one took {seconds:.1f} s"))
        self.epochs = self.learn.n_epoch = epochs
        self.journal.facts.epochs = epochs
        self.journal.write()
