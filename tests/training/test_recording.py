"""Losses and metrics that are collected on the device, beside fastai's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fastai.learner import AvgLoss, AvgSmoothLoss

from tests.helpers.fake_gpu import fake_gpu
from tlfast.core.metrics import EPOCH_METRICS, METRICS, Counts, confusion_matrix
from tlfast.training.recording import MeanLoss, SmoothLoss, epoch_metrics


def batches():
    generator = torch.Generator().manual_seed(0)
    for count in (8, 8, 5):
        yield SimpleNamespace(
            loss=torch.rand((), generator=generator, requires_grad=True),
            pred=torch.rand(count, 4, generator=generator),
            yb=(torch.randint(4, (count,), generator=generator),),
            to_detach=lambda x: x.detach(),
        )


@pytest.mark.parametrize(("ours", "fastais"), [(SmoothLoss, AvgSmoothLoss), (MeanLoss, AvgLoss)])
def test_the_averages_are_fastais(ours, fastais):
    values = []
    for kind in (ours, fastais):
        average = kind()
        average.reset()
        for learn in batches():
            average.accumulate(learn)
        values.append(float(average.value))
    assert values[0] == values[1] != 0


def test_each_metric_is_that_of_all_predictions_of_the_epoch():
    metrics = epoch_metrics()
    for metric in metrics:
        metric.reset()
    for learn in batches():
        for metric in metrics:
            metric.accumulate(learn)
    labels, predicted = (torch.cat(parts).numpy() for parts in zip(*((learn.yb[0], learn.pred.argmax(1)) for learn in batches()), strict=True))
    counts = Counts.of_confusion(confusion_matrix(labels, predicted, 4))
    assert [metric.name for metric in metrics] == list(EPOCH_METRICS)
    assert {metric.name: metric.value for metric in metrics} == {name: float(METRICS[name].function(counts)) for name in EPOCH_METRICS}
    metrics[0].reset()
    assert metrics[0].counts.by_class is None, "the next epoch begins without counts"


def test_nothing_is_copied_from_the_device():
    with fake_gpu() as gpu:
        learn = SimpleNamespace(loss=torch.zeros((), device=gpu), pred=torch.zeros(8, 4, device=gpu), yb=(torch.zeros(8, dtype=torch.long, device=gpu),))
        smooth, mean, metric = SmoothLoss(), MeanLoss(), epoch_metrics()[0]
        for collector in (smooth, mean, metric):
            collector.reset()
            collector.accumulate(learn)
        assert smooth.value.device == mean.value.device == metric.counts.by_class.device == gpu
