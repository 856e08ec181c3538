"""Adaptation of BatchNorm statistics."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.training import resolved
from tlfast.training import batchnorm, trainer


def test_batchnorm_is_adapted_to_the_training_images_and_nothing_else_changes(folder):
    task, chosen = resolved(folder, "full", augment="none", bs=30)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        before = {name: value.clone() for name, value in body.state_dict().items()}
        batchnorm.adapt_batchnorm(body, session.learn.dls.train, chosen, "off", lambda event: None)
        after = body.state_dict()
        changed = {name.rsplit(".", 1)[1] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"running_mean", "running_var", "num_batches_tracked"}
        x, _ = next(iter(session.learn.dls.train))
        norm = next(module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d))
        inputs = []
        norm.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
        body.eval()(x.as_subclass(torch.Tensor))
        assert norm.momentum == 0.1 and not body.training
        assert torch.allclose(norm.running_mean, inputs[0].mean(dim=(0, 2, 3)), atol=1e-4)


def test_a_failed_pass_leaves_the_momentum_of_batchnorm(folder):
    def fail(event):
        raise torch.OutOfMemoryError("CUDA out of memory")

    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        with pytest.raises(torch.OutOfMemoryError):
            batchnorm.adapt_batchnorm(body, session.learn.dls.train, chosen, "off", fail)
        assert {norm.momentum for norm in body.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {0.1} and not body.training
