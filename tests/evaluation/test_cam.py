"""Class activation maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tlfast.data import Preprocessing
from tlfast.evaluation import cam
from tlfast.models import build
from tlfast.testing import draw_image


def test_tokens_of_a_pooling_layer_are_no_features():
    class Pooled(torch.nn.Module):
        """As the ResNets of CLIP: maps, which a layer pools as tokens."""

        num_features = 4

        def __init__(self):
            super().__init__()
            self.conv, self.attention = torch.nn.Conv2d(3, 4, 1), torch.nn.Linear(4, 4)

        def forward_features(self, x):
            return self.conv(x)

        def forward(self, x):
            return self.attention(self.forward_features(x).flatten(2).transpose(1, 2)).mean(dim=1)

    maps = cam.compute_maps(torch.nn.Sequential(Pooled(), torch.nn.Linear(4, 2)), torch.randn(2, 3, 8, 8))
    assert maps is not None and maps.shape == (2, 8, 8)


def test_a_network_is_seen_to_look_where_its_answer_is():
    class Bright(torch.nn.Module):
        """Features that are the image itself: the answer 0 is how bright it is."""

        num_features = 3

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1, bias=False)
            torch.nn.init.eye_(self.conv.weight.data[:, :, 0, 0])

        def forward(self, x):
            return self.conv(x).mean(dim=(2, 3))

    head = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.constant_(head.weight, 1.0)
    x = torch.zeros(1, 3, 12, 12)
    x[:, :, 2:4, 8:10] = 1.0
    (found,) = cam.compute_maps(torch.nn.Sequential(Bright(), head), x)
    assert found.shape == (12, 12) and found[2:4, 8:10].min() == 1.0 and found.sum() == 4.0
    picture = np.asarray(cam.overlay_map(Image.new("RGB", (12, 12)), found, 48), int)
    assert picture[12, 36].sum() > picture[40, 8].sum()  # yellow there, violet elsewhere


@pytest.mark.parametrize("tells", [True, False])
def test_a_batch_that_does_not_fit_into_memory_is_divided(tells, tmp_path, monkeypatch):
    sizes = []

    def short(network, x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.rand(len(x), 6, 6) if tells else None

    monkeypatch.setattr(cam, "compute_maps", short)
    paths = [str(draw_image(tmp_path / f"{i}.png", (9, 9, 9), i)) for i in range(4)]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 2))
    maps = cam.render_maps(network, paths, Preprocessing(32, 32, "squish", (0.5,) * 3, (0.5,) * 3), lambda event: None)
    assert sizes == [4, 2, 2] and list(maps) == (paths if tells else [])


@pytest.mark.parametrize(
    ("arch", "side", "tells"),
    [("test_resnet", 64, True), ("test_vit", 64, False), ("mixer_s32_224", 224, False), ("test_convnext", 64, True)],
)
def test_maps_of_real_networks(arch, side, tells):
    network = build.build_model(arch, 3, side).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = cam.compute_maps(network, torch.randn(2, 3, side, side))
    assert (found is not None) == tells
    assert found is None or (found.min() >= 0 and found.max() <= 1 and found.ndim == 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
