"""Batches as the network sees them."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.training import watched


@pytest.mark.parametrize("flags", [{}, {"mixup": 0.4}, {"strategy": "partial", "train_bn": True}], ids=str)
def test_the_network_is_given_plain_tensors_with_channels_last(folder, flags):
    seen, _ = watched(folder, **flags)
    assert seen.kinds == {(torch.Tensor, True)}
