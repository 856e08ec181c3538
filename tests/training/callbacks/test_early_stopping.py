"""The best epoch, early stopping, and losses that are no numbers."""

from __future__ import annotations

import pytest

from tests.helpers.interruption import train_way
from tlfast.core.errors import TrainingError
from tlfast.training.callbacks import progress


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
    assert any("the loss became NaN or infinite at step 5: stopped, with the weights of the best epoch. Try a lower --lr" in note for note in said)
    assert len(result.phases[1].epochs) == 1
    broken = 1
    with pytest.raises(TrainingError, match="NaN or infinite at step 1 of phase 'all layers', before the end of its first epoch") as caught:
        train_way("full", pictures, tmp_path, lr="3e-3", freeze_epochs=0)
    assert "Try a lower --lr than 3.0e-03" in caught.value.hint


def test_best_epoch_is_what_is_kept(make):
    result = make("full", epochs=4)
    phase = result.phases[-1]
    best = phase.epochs[phase.best_epoch - 1]
    assert best.accuracy == max(row.accuracy for row in phase.epochs)
    assert result.evaluation.accuracy == pytest.approx(best.accuracy, abs=1e-6)


def test_patience_ends_a_phase_early(make):
    phase = make("partial", epochs=60, patience=2, lr="1e-9").phases[0]
    assert len(phase.epochs) == phase.best_epoch + 2 < 60


def test_the_metric_decides(make):
    phase = make("partial", epochs=5, metric="valid_loss").phases[0]
    assert phase.epochs[phase.best_epoch - 1].valid_loss == min(row.valid_loss for row in phase.epochs)
