"""The learner and its groups of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.helpers.training import resolved
from tlfast.core import ignore_event
from tlfast.models import build, device
from tlfast.models.fuse_bn import fuse_bn
from tlfast.training import learner, trainer


def test_lowest_group_holds_the_stem():
    model = build.build_model("mobilenetv2_100", 5, 32)
    lower, upper, head = learner.split_parameters(model)
    assert any(p is model[0].conv_stem.weight for p in lower)
    assert any(p is model[0].conv_head.weight for p in upper)
    assert {id(p) for p in head} == {id(p) for p in model[1].parameters()}


def test_balanced_class_weights_are_scikit_learns():
    assert learner.balance_classes([0, 0, 0, 1], 2).tolist() == pytest.approx([4 / 6, 2.0])


@pytest.mark.parametrize("without_channels_last", [(), ("cpu",)])
def test_the_memory_format_is_that_of_the_device(without_channels_last, folder, monkeypatch):
    monkeypatch.setattr(device, "CONTIGUOUS_ON", without_channels_last)  # of a CPU, as of MPS
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, ignore_event) as session:
        body, head = session.learn.model
    networks, given = (body, fuse_bn(body)), []
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    try:
        for network in networks:
            head(network(build.to_network_input(torch.rand(2, 3, 32, 32))))
    finally:
        hook.remove()
    images = [x for x in given if x.ndim == 4 and x.shape[1] > 1 and x.shape[2] > 1]
    assert len(images) > 20
    assert {x.is_contiguous() for x in images} == {bool(without_channels_last)}
