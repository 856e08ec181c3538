"""The kept epoch, early stopping, and losses that are no numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import CancelFitException

from tests.helpers.interruption import train_way
from tlfast.core.errors import TrainingError
from tlfast.training import recording
from tlfast.training.callbacks import progress
from tlfast.training.callbacks.early_stopping import KeepEpoch


def test_a_loss_that_is_no_number_ends_a_phase(pictures, tmp_path, monkeypatch):
    watch = progress.ProgressCallback.after_batch

    def poison(self):
        watch(self)
        if self.training and self.phase == "all layers" and self.step == broken:
            self.learn.loss = self.loss * float("nan")

    monkeypatch.setattr(progress.ProgressCallback, "after_batch", poison)
    said = []
    broken = 5
    result = train_way("full", pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3")
    assert any("the loss became NaN or infinite at step 5: stopped, with the weights of the last complete epoch. Try a lower --lr" in note for note in said)
    assert len(result.phases[1].epochs) == 1
    broken = 1
    with pytest.raises(TrainingError, match="NaN or infinite at step 1 of phase 'all layers', before the end of its first epoch") as caught:
        train_way("full", pictures, tmp_path, lr="3e-3", freeze_epochs=0)
    assert "Try a lower --lr than 3.0e-03" in caught.value.hint


SCORES = [0.1, 0.5, 0.3, 0.4]  # of four epochs


@pytest.fixture
def scores(monkeypatch):
    """Replace the accuracy of the epochs of a fit by SCORES."""

    def read(metric):
        return SCORES[metric.epoch - 1] if metric.name == "accuracy" else 0.0

    def reset(metric):
        metric.epoch = getattr(metric, "epoch", 0) + 1

    monkeypatch.setattr(recording.EpochMetric, "reset", reset)
    monkeypatch.setattr(recording.EpochMetric, "accumulate", lambda metric, learn: None)
    monkeypatch.setattr(recording.EpochMetric, "value", property(read))


@pytest.mark.parametrize(("flags", "kept"), [({}, 4), ({"keep": "last"}, 4), ({"keep": "best"}, 2), ({"patience": 3}, 2), ({"patience": 3, "keep": "last"}, 4)])
def test_the_last_or_the_best_epoch_is_kept(make, scores, flags, kept):
    result = make("partial", epochs=4, lr="3e-3", **flags)
    phase = result.phases[0]
    assert [row.accuracy for row in phase.epochs] == SCORES and phase.kept_epoch == kept
    log_loss = result.evaluation.calibration.log_loss_before
    losses = [row.valid_loss for row in phase.epochs]
    assert log_loss == pytest.approx(losses[kept - 1], abs=1e-3), "the weights are those of that epoch"
    assert min(abs(losses[kept - 1] - other) for i, other in enumerate(losses) if i != kept - 1) > 2e-3, "the losses tell the epochs apart"


@pytest.mark.parametrize(("keep", "before", "kept"), [("auto", 0.5, 4), ("auto", 0.6, 0), ("last", 0.6, 4), ("best", 0.5, 2), ("best", 0.6, 0)])
def test_an_epoch_as_good_as_the_phase_before_is_enough(keep, before, kept):
    callback = KeepEpoch("accuracy", None, keep == "best", None if keep == "last" else before)
    recorder = SimpleNamespace(metric_names=["epoch", "train_loss", "valid_loss", "accuracy", "time"], values=[])
    callback.learn = SimpleNamespace(model=torch.nn.Linear(1, 1), recorder=recorder)
    callback.before_fit()
    for score in SCORES:
        recorder.values.append([1.0, 1.0, score])
        callback.after_epoch()
    assert callback.kept_epoch == kept


def test_patience_counts_from_the_best_epoch_of_the_phase_itself():
    callback = KeepEpoch("accuracy", 2, True, to_beat=0.9)
    recorder = SimpleNamespace(metric_names=["epoch", "train_loss", "valid_loss", "accuracy", "time"], values=[])
    callback.learn = SimpleNamespace(model=torch.nn.Linear(1, 1), recorder=recorder)
    callback.before_fit()
    for score in (0.5, 0.6, 0.7, 0.8, 0.92, 0.91):
        recorder.values.append([1.0, 1.0, score])
        callback.after_epoch()
    recorder.values.append([1.0, 1.0, 0.9])
    with pytest.raises(CancelFitException):
        callback.after_epoch()
    assert (callback.kept_epoch, callback.epochs) == (5, 7)


def test_patience_ends_a_phase_early(make):
    phase = make("partial", epochs=60, patience=2, lr="1e-9").phases[0]
    assert len(phase.epochs) == phase.kept_epoch + 2 < 60


def test_the_metric_decides(make):
    phase = make("partial", epochs=5, metric="valid_loss").phases[0]
    assert phase.epochs[phase.kept_epoch - 1].valid_loss == min(row.valid_loss for row in phase.epochs)
