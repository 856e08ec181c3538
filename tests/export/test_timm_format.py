"""A run with a linear head is a plain timm model, and can be loaded from its weights again."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from tests.helpers.command_line import TINY
from tlfast.commands.push import fill_folder
from tlfast.core import runs
from tlfast.data.discovery import gather_sources
from tlfast.data.images import open_image
from tlfast.export import load_model, timm_format
from tlfast.inference.classifier import load
from tlfast.models import build_model


def randomize(model):
    """Give the norms statistics that a training would."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            for values in (module.running_mean, module.weight.data, module.bias.data):
                values.normal_(0.5, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


def predict_with_timm(folder, paths):
    """Return classes and probabilities `[n, c]` of timm's model and transform, used as the model card says."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    images = [transform(open_image(path)) for path in paths]
    with torch.inference_mode():
        return list(model.pretrained_cfg["label_names"]), torch.cat(
            [model(torch.stack(images[n : n + 32])).softmax(1) for n in range(0, len(images), 32)]
        ).numpy()


def compare(run, folder, paths):
    """Compare timm's probabilities for images with those of the run."""
    expected = [row.prediction.probabilities for row in load(run.folder).predict_iter(paths)]
    classes, probabilities = predict_with_timm(folder, paths)
    assert classes == run.manifest["classes"]
    np.testing.assert_allclose(probabilities, [[each[name] for name in classes] for each in expected], atol=1e-5)


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_networks_with_a_linear_head(arch):
    size = 64
    model = randomize(build_model(arch, 5, size, "linear"))
    network = timm_format.build_timm_model(model, arch, 5, size, 1.7)
    images = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), model(images) / 1.7, rtol=1e-3, atol=1e-4)
        restored = build_model(arch, 5, size, "linear")
        restored.load_state_dict(timm_format.restore_state(network.state_dict(), timm_format.name_classifier(network), model[1].state_dict()))
        assert torch.equal(restored.eval()(images), model(images))


def test_other_heads_are_left_as_they_are():
    assert timm_format.build_timm_model(build_model("test_resnet", 5, 64), "test_resnet", 5, 64, 1.0) is None


@pytest.mark.parametrize("flags", [(), ("--crop-pct", "0.9")], ids=str)
def test_timm_answers_like_the_run(cli, pictures, tmp_path, flags):
    assert cli("train", pictures, *TINY, "--head", "linear", *flags, "--name", "r").code == 0
    run = runs.find("r")
    (tmp_path / "repository").mkdir()
    assert fill_folder(run, tmp_path / "repository", "me/colours")
    paths = sorted(pictures.glob("*/*.png"))
    compare(run, tmp_path / "repository", paths)
    again = load_model(runs.read_run(tmp_path / "repository"))
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(images), load_model(run)(images))
    assert "timm.create_model" in (tmp_path / "repository" / "README.md").read_text()


@pytest.mark.real
def test_timm_answers_like_the_run_on_seedlings(cli, shared, tmp_path):
    """An eighth of the valid part, with a backbone and images as users have them."""
    flags = ("--head", "linear", "--weights", shared / "weights" / "mobilenetv2_100.safetensors", "--limit", 400, "--epochs", 1)
    assert cli("train", shared / "data" / "seedlings.zip", "--arch", "mobilenetv2_100", *flags, "--name", "r").code == 0
    run = runs.find("r")
    (tmp_path / "repository").mkdir()
    assert fill_folder(run, tmp_path / "repository", "me/seedlings")
    paths = [path for path in gather_sources([str(shared / "data" / "seedlings.zip")]) if "/valid/" in path][::8]
    compare(run, tmp_path / "repository", paths)
