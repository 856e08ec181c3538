"""Heads of classifiers."""

from __future__ import annotations

import timm
import torch

from tests.helpers.fake_gpu import fake_gpu
from tlfast.models import count_features


def test_features_are_counted_on_the_device_of_the_body():
    with fake_gpu() as gpu:
        with torch.device(gpu):
            body = timm.create_model("test_resnet", num_classes=0)
        assert count_features(body, 32) == 96
