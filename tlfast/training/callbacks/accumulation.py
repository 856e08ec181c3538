"""Gradient accumulation over a number of batches."""

from __future__ import annotations

from fastai.callback.training import GradientAccumulation


class AccumulateBatches(GradientAccumulation):
    """Make an optimizer step with the gradients of `batches` batches, at most those of an epoch.

    fastai's callback counts images. Their number, `n_acc`, is that of the loader's batches: with few images these are smaller than `--bs`.
    """

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def count_images(self) -> int:
        """Return the number of images of an optimizer step."""
        return min(self.batches, len(self.dls.train)) * int(self.dls.train.bs)

    def before_fit(self) -> None:
        super().before_fit()
        self.n_acc = self.count_images()
