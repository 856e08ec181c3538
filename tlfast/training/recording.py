"""Losses and metrics of a fit, collected on the device: fastai's classes copy them to main memory, and so wait for a GPU, in every batch."""

from __future__ import annotations

from typing import Any

import torch
from fastai.learner import AvgLoss, AvgSmoothLoss, Learner, Metric

from ..core import metrics


def record_on_device(learn: Learner) -> Learner:
    """Let a Learner's recorder average the losses on the device."""
    learn.recorder.smooth_loss, learn.recorder.loss = SmoothLoss(), MeanLoss()
    return learn


def record_on_host(learn: Learner) -> Learner:
    """Let a Learner's recorder average the losses as fastai does, in main memory, so that the Learner can plot them."""
    learn.recorder.smooth_loss, learn.recorder.loss = AvgSmoothLoss(), AvgLoss()
    return learn


class SmoothLoss(AvgSmoothLoss):
    """fastai's average of the training loss, with exponentially decreasing weights."""

    val: torch.Tensor

    def accumulate(self, learn: Any) -> None:
        loss = _detach(learn.loss).mean()
        self.count += 1
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class MeanLoss(AvgLoss):
    """fastai's mean of the validation loss."""

    def accumulate(self, learn: Any) -> None:
        count = len(learn.yb[0])
        self.total += _detach(learn.loss).mean() * count
        self.count += count


class EpochMetric(Metric):
    """A metric of `core.metrics` for the table of epochs. The metrics of a Learner share `counts`; the first of them collects."""

    def __init__(self, metric: metrics.Metric, counts: EpochCounts, collects: bool) -> None:
        self.metric, self.counts, self.collects = metric, counts, collects

    @property
    def name(self) -> str:
        return self.metric.name

    def reset(self) -> None:
        if self.collects:
            self.counts.reset()

    def accumulate(self, learn: Any) -> None:
        if self.collects:
            self.counts.add(learn.pred, learn.yb[0])

    @property
    def value(self) -> float | None:
        counts = self.counts.read()
        return None if counts is None else float(self.metric.function(counts))


class EpochCounts:
    """The counts of an epoch's validation, on the device of the predictions.

    Attributes:
        by_class: number of images, of predictions and of correct predictions of each class `[3 c]`; None without any.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin an epoch."""
        self.by_class: torch.Tensor | None = None

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count the predictions of a batch: logits `[b, c]`, class indices `[b]`."""
        classes, actual, predicted = logits.shape[1], _detach(labels), _detach(logits).argmax(dim=1)
        if self.by_class is None:
            self.by_class = torch.zeros(3 * classes, dtype=torch.long, device=predicted.device)
        ones = torch.ones_like(predicted)
        self.by_class.index_add_(0, torch.cat([actual, classes + predicted, 2 * classes + actual]), torch.cat([ones, ones, (actual == predicted).long()]))

    def read(self) -> metrics.Counts | None:
        """Return the counts so far; None without any, as for images without labels."""
        return None if self.by_class is None else metrics.Counts(*self.by_class.view(3, -1).cpu().numpy())


def epoch_metrics() -> list[EpochMetric]:
    """Return a fastai metric for every metric of `EPOCH_METRICS`, in order."""
    counts = EpochCounts()
    return [EpochMetric(metrics.METRICS[name], counts, collects=i == 0) for i, name in enumerate(metrics.EPOCH_METRICS)]


def _detach(x: torch.Tensor) -> torch.Tensor:
    return x.detach().as_subclass(torch.Tensor)
