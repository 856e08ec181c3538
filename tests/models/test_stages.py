"""A backbone's stages, and its division at one of them."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.resnet import ResNet

from tlfast.core.errors import UsageError
from tlfast.models import build, pretrained, stages

NAMES = {
    "mobilenetv2_100": [f"blocks.{i}" for i in range(7)],
    "resnet50": ["layer1", "layer2", "layer3", "layer4"],
    "test_convnext": [f"stages.{i}" for i in range(4)],
    "test_vit": [f"blocks.{i}" for i in range(6)],
}


def body_of(arch, size=32):
    torch.manual_seed(0)
    return build.build_body(pretrained.Weights("none", arch), size)


@pytest.mark.parametrize("arch", NAMES)
def test_stages_are_named(arch):
    assert stages.list_stages(body_of(arch), arch) == NAMES[arch]


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_two_parts_make_up_the_whole_and_share_its_layers(arch):
    body = body_of(arch).eval()
    x = torch.rand(3, 3, 32, 32)
    own = dict(body.named_parameters())
    for depth in range(1, len(stages.list_stages(body, arch)) + 1):
        parts = stages.split_at(body, arch, depth, 32)
        lower, upper = (dict(part.named_parameters()) for part in (parts.lower, parts.upper))
        assert all(own[name] is value for name, value in {**lower, **upper}.items())
        assert set(lower) | set(upper) == set(own) and not set(lower) & set(upper) and lower and upper
        assert torch.allclose(parts.upper(parts.lower(x)), body(x), atol=1e-5)
        first = stages.list_stages(body, arch)[-depth]
        assert any(name.startswith(f"{first}.") for name in upper) and not any(name.startswith(f"{first}.") for name in lower)


def test_batchnorm_of_the_upper_part_learns_while_that_of_the_lower_stays():
    body = body_of("test_resnet").eval()
    parts = stages.split_at(body, "test_resnet", 2, 32)
    before = {name: value.clone() for name, value in body.named_buffers()}
    parts.upper.train()
    parts.upper(parts.lower(torch.rand(4, 3, 32, 32)))
    changed = {name for name, value in body.named_buffers() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("layer3", "layer4")) for name in changed)


def test_a_network_that_does_not_say_its_stages(monkeypatch):
    monkeypatch.delattr(ResNet, "group_matcher")
    assert stages.list_stages(body_of("test_resnet"), "test_resnet") == ["layer1", "layer2", "layer3", "layer4"], "as feature_info names them"
    monkeypatch.setattr(ResNet, "feature_info", property(lambda self: [], lambda self, value: None), raising=False)
    with pytest.raises(UsageError, match="test_resnet does not declare its stages") as caught:
        stages.list_stages(body_of("test_resnet"), "test_resnet")
    assert "--partial" in caught.value.hint


def test_branches_that_cross_the_boundary_are_refused():
    body = timm.create_model("crossvit_tiny_240", num_classes=0, img_size=64)
    with pytest.raises(UsageError, match="--depth 1: crossvit_tiny_240 cannot be split at this stage"):
        stages.split_at(body, "crossvit_tiny_240", 1, 64)


def test_a_network_of_which_more_than_one_value_would_cross():
    class Skipping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.first, self.second = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            low = self.stem(x)
            return (self.second(self.first(low)) + low).mean((2, 3))

        def group_matcher(self, coarse):
            return {"stem": "^stem", "blocks": [("^first", (0,)), ("^second", (1,))]}

    body = Skipping()
    assert stages.list_stages(body, "skipping") == ["first", "second"]
    stages.split_at(body, "skipping", 2, 8)
    with pytest.raises(UsageError, match="--depth 1: skipping cannot be split at this stage"):
        stages.split_at(body, "skipping", 1, 8)
