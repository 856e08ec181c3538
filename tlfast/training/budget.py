"""Time budget of the last phase under `--minutes`: the number of epochs that end in time."""

from __future__ import annotations

from dataclasses import dataclass

from ..core import Journal

LATE = 0.05  # share of `--minutes` by which a training may exceed it, if that is nearer than one epoch less


@dataclass(frozen=True)
class Budget:
    """Time budget of a phase, as the journal holds it.

    `ends` is the limit, `judging` the validation after each epoch, `closing` the work after the last epoch, all in seconds. An epoch trains on
    `images` images; there are at most `most` epochs.

    >>> Budget(ends=100.0, judging=1.0, closing=10.0, images=90, most=20).count_epochs(elapsed=40.0, step=0.1)
    5
    """

    ends: float
    judging: float
    closing: float
    images: int
    most: int

    def count_epochs(self, elapsed: float, step: float) -> int:
        """Return the number of epochs, at least 1, for steps of `step` seconds per image that begin after `elapsed` seconds."""
        return min(max(1, self._count_fitting(elapsed, self.images * step + self.judging)), self.most)

    def recount_epochs(self, elapsed: float, done: int, epoch: float) -> int:
        """Return the number of epochs after `done` of them, if each further one takes `epoch` seconds with its validation."""
        return min(done + max(0, self._count_fitting(elapsed, epoch)), self.most)

    def _count_fitting(self, elapsed: float, epoch: float) -> int:
        left = self.ends - elapsed - self.closing
        epochs = round(left / epoch)
        return epochs - (epochs * epoch - left > LATE * self.ends)


def read_budget(journal: Journal) -> Budget | None:
    """Return the budget that a plan has left in the journal; None without `--minutes`."""
    values = (journal.facts.planned or {}).get("budget")
    return Budget(**values) if values else None
