from __future__ import annotations

import pytest
import torch

from tlfast.core import Settings
from tlfast.core.errors import UsageError
from tlfast.models import build, pretrained
from tlfast.training import learner

# One of each way in which timm ends a network: BatchNorm and pooling, hidden head layers, tokens, NHWC.
ARCHS = [
    "test_resnet",
    "test_efficientnet",
    "test_vit",
    "mobilenetv3_small_050",
    "test_convnext",
    "swin_tiny_patch4_window7_224",
    "efficientvit_b0",
    "ghostnet_050",
]


@pytest.mark.parametrize("arch", ARCHS)
def test_any_timm_name_builds_with_three_groups(arch):
    size = 64
    model = build.build_model(arch, 5, size)
    assert model.eval()(torch.zeros(2, 3, size, size)).shape == (2, 5)
    groups = learner.split_parameters(model)
    ids = [id(p) for group in groups for p in group]
    assert len(groups) == 3 and all(groups)
    assert len(set(ids)) == len(ids) == len(list(model.parameters()))


def test_unknown_arch_suggests_the_nearest():
    with pytest.raises(UsageError) as error:
        build.check_arch("resnet5O")
    assert error.value.message == "--arch 'resnet5O' is not a timm model" and error.value.hint == "Did you mean 'resnet50'?"
    build.check_arch("resnet50.a1_in1k")


def test_sizes_are_refused_for_a_network_of_one_size():
    chosen = Settings(task="t", arch="test_vit", depth="all", sizes="24", size=64)
    with pytest.raises(UsageError, match=r"--sizes 24: test_vit takes no images of 24 px \(Input height") as caught:
        build.check_sizes(build.build_body(pretrained.Weights("none", "test_vit"), 64), chosen)
    assert caught.value.hint == "Leave out --sizes, or use another --arch"
    body = build.build_body(pretrained.Weights("none", "test_resnet"), 64).train()
    body.pretrained_cfg["fixed_input_size"] = True  # which timm also sets for networks that take any size
    build.check_sizes(body, chosen)
    assert body.training
