"""Heads of classifiers."""

from __future__ import annotations

import pytest
import timm
import torch
from fastai.vision.learner import create_head

from tests.helpers.command_line import TINY
from tests.helpers.fake_gpu import fake_gpu
from tlfast.core import runs
from tlfast.core.settings import declared_settings
from tlfast.export import load_model
from tlfast.models import build_model, count_features
from tlfast.models.head import HIDDEN


def test_features_are_counted_on_the_device_of_the_body():
    with fake_gpu() as gpu:
        with torch.device(gpu):
            body = timm.create_model("test_resnet", num_classes=0)
        assert count_features(body, 32) == 96


def test_a_linear_head_can_be_merged_into_one_layer():
    model = build_model("test_resnet", 5, 32, "linear").eval()
    normalize, dropout, last = model[1]
    with torch.no_grad():
        normalize.running_mean.uniform_(-1, 1)
        normalize.running_var.uniform_(0.5, 2)
        normalize.weight.uniform_(0.5, 2)
        normalize.bias.uniform_(-1, 1)
    features = torch.randn(7, 96)
    scale = normalize.weight / (normalize.running_var + normalize.eps).sqrt()
    weight, bias = last.weight * scale, last.weight @ (normalize.bias - scale * normalize.running_mean)
    assert isinstance(dropout, torch.nn.Dropout)
    torch.testing.assert_close(model[1](features), features @ weight.T + bias)


def test_the_default_head_is_that_of_fastai():
    ours, theirs = build_model("test_resnet", 5, 32)[1], create_head(96, 5, pool=False)
    assert repr(ours) == repr(theirs) == repr(build_model("test_resnet", 5, 32, "fastai")[1])


def test_every_kind_of_head_is_a_choice_of_the_setting():
    assert tuple(HIDDEN) == declared_settings()["head"].choices


@pytest.mark.parametrize("flags", [[], ["--depth", "2", "--freeze-epochs", "1"], ["--full", "--freeze-epochs", "1"]])
def test_a_run_with_a_linear_head_is_exported_and_evaluated(cli, pictures, flags):
    trained = cli("train", pictures, *TINY, *flags, "--head", "linear", "--epochs", "1", "--name", "r", "--json")
    assert trained.code == 0, trained.err
    assert trained.json["onnx"]["top1"] == 1.0
    assert cli("evaluate", "r", "--json").json["evaluation"]["accuracy"] == pytest.approx(trained.json["evaluation"]["accuracy"])
    assert len(load_model(runs.find("r"))[1]) == 3
