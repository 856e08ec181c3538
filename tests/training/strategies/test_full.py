"""Full fine-tuning: the head first, then all layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

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


ALL_AT_ONCE = {"class_weights": "balanced", "label_smoothing": 0.1, "mixup": 0.4, "augment": "strong", "accumulate": 3, "sizes": "16,24", "ema": True}


@pytest.mark.parametrize(
    ("flags", "phases"),
    [(ALL_AT_ONCE, ["head", "all layers"]), ({"amp": "bf16", "freeze_epochs": 0}, ["all layers"]), ({"amp": "auto"}, ["head", "all layers"])],
)
def test_phases_with_other_settings(make, flags, phases):
    result = make("full", epochs=1, **flags)
    assert [phase.name for phase in result.phases] == phases
    assert all(math.isfinite(row.train_loss) for phase in result.phases for row in phase.epochs)


def test_class_weights_and_label_smoothing_are_in_the_loss(folder):
    for path in sorted((folder / "red").iterdir())[:6]:
        path.unlink()
    task, chosen = resolved(folder, "full", class_weights="balanced", label_smoothing=0.1)
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    with trainer.prepare(task, chosen, lambda event: None) as session:
        counts = torch.tensor([session.table.summary().counts["train"][label] for label in session.table.classes], dtype=torch.float)
        expected = cross_entropy(logits, labels, weight=counts.sum() / (3 * counts), label_smoothing=0.1)
        assert float(session.learn.loss_func(logits, labels)) == pytest.approx(float(expected), rel=1e-5)
    assert counts[2] < counts[0]
