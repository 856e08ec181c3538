"""The learner and its groups of parameters."""

from __future__ import annotations

import pytest

from tlfast.models import build
from tlfast.training import learner


def test_lowest_group_holds_the_stem():
    model = build.build_model("mobilenetv2_100", 5, 32)
    lower, upper, head = learner.split_parameters(model)
    assert any(p is model[0].conv_stem.weight for p in lower)
    assert any(p is model[0].conv_head.weight for p in upper)
    assert {id(p) for p in head} == {id(p) for p in model[1].parameters()}


def test_balanced_class_weights_are_scikit_learns():
    assert learner.balance_classes([0, 0, 0, 1], 2).tolist() == pytest.approx([4 / 6, 2.0])
