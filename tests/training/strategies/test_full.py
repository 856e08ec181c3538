"""Full fine-tuning: the head first, then all layers."""

from __future__ import annotations

import pytest

from tests.helpers.training import resolved, weights_before_and_after
from tlfast.training import trainer
from tlfast.training.callbacks import progress


def test_full_changes_all_of_it(folder):
    changed, body, head = weights_before_and_after(folder, "full", freeze_epochs=0)
    assert {name for name in body | head if name.endswith(("weight", "running_mean"))} <= changed


def test_full_moves_the_lowest_layers_slowest(folder, monkeypatch):
    seen = []
    original = progress.ProgressCallback.after_batch

    def spy(self):
        if self.phase == "all layers" and self.training:
            seen.append([group["lr"] for group in self.opt.hypers])
        original(self)

    monkeypatch.setattr(progress.ProgressCallback, "after_batch", spy)
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        trainer.fit(session, chosen)
    assert seen and all(len(rates) >= 3 and rates == sorted(rates) and rates[0] < rates[-1] for rates in seen)


@pytest.mark.parametrize(
    "flags",
    [
        {"class_weights": "balanced"},
        {"label_smoothing": 0.1},
        {"mixup": 0.4},
        {"augment": "strong"},
        {"freeze_epochs": 0},
        {"accumulate": 3},
        {"sizes": "16,24"},
        {"ema": True},
        {"amp": "bf16"},
        {"amp": "auto"},
    ],
)
def test_every_way_to_train_runs(make, flags):
    result = make("full", epochs=1, **flags)
    assert 0 <= result.evaluation.accuracy <= 1
    assert [p.name for p in result.phases] == (["all layers"] if "freeze_epochs" in flags else ["head", "all layers"])
