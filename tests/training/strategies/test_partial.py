"""Partial fine-tuning: a frozen backbone and a new head."""

from __future__ import annotations

import copy

import torch

from tests.helpers.training import resolved, weights_before_and_after
from tlfast.training import trainer


def test_partial_changes_no_weight_and_no_batchnorm_statistic_of_the_backbone(folder):
    changed, body, head = weights_before_and_after(folder, "partial")
    assert any("running_mean" in name for name in body)
    assert not changed & body
    assert {name for name in head if name.endswith("weight")} <= changed


def test_fastais_own_way_lets_batchnorm_adapt(folder):
    task, chosen = resolved(folder, "partial", train_bn=True)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        before = copy.deepcopy(body.state_dict())
        (phase,), _ = trainer.fit(session, chosen)
        changed = {name.rsplit(".", 1)[0] for name, value in body.state_dict().items() if not torch.equal(before[name], value)}
        norms = {name for name, module in body.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert phase.name == "head and BatchNorm" and phase.features is None and changed == norms
