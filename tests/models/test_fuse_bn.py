"""Folded networks give what they gave before."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tlfast.models.fuse_bn import fuse_bn


class Forked(nn.Module):
    """A path that depends on the values: fx cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else x


class Shared(nn.Module):
    """One convolution before two norms, and one norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        x = self.second(self.norm(self.conv(x)) + self.conv(x))
        return self.norm(self.other(x)).mean((2, 3))


def seasoned(model: nn.Module) -> nn.Module:
    """A network whose norms have statistics and weights of their own."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_byobnet", "test_vit"])
def test_the_output_is_the_same_to_rounding(arch):
    body = seasoned(timm.create_model(arch, num_classes=0))
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    size = body.pretrained_cfg["input_size"][-1]
    x = torch.randn(3, 3, size, size)
    cheap = fuse_bn(body)
    with torch.no_grad():
        wanted = body(x)
        assert torch.allclose(cheap(x), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    assert all(torch.equal(before[name], tensor) for name, tensor in body.state_dict().items())
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in each.modules()) for each in (body, cheap)]
    assert norms[1] < norms[0] or (cheap is body and norms[0] == 0)


def test_what_cannot_be_traced_stays_as_it_is():
    body = seasoned(Forked())
    assert fuse_bn(body) is body


def test_weights_that_serve_twice_are_not_folded():
    body, x = seasoned(Shared()), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(fuse_bn(body)(x), body(x), atol=1e-5)
