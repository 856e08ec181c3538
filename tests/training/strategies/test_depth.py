"""Training of the topmost stages on what the frozen ones below make of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.resnet import ResNet

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved, train_depth, weights_before_and_after
from tlfast.core import runs
from tlfast.models import build
from tlfast.training import features, loaders, trainer
from tlfast.training.strategies import depth


def test_only_the_topmost_stages_change(folder):
    changed, body, head = weights_before_and_after(folder, "depth", depth="2", freeze_epochs=0, augment="none")
    upper = {name for name in body if name.startswith(("0.layer3", "0.layer4"))}
    assert not changed & (body - upper)
    assert {name for name in upper | head if name.endswith(("weight", "running_mean"))} <= changed


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_the_cache_changes_nothing_of_what_is_trained(folder, monkeypatch, arch):
    """The same training, its activations made anew for each batch by the lower stages themselves, as if nothing were kept."""
    flags = {"arch": arch, "depth": "2", "views": 1, "augment": "none", "cache_format": "fp32", "amp": "off", "epochs": 3}
    ours, phases = train_depth(folder, **flags)
    extract, made = features.extract, []

    def uncached(body, session, chosen):
        kept = extract(body, session, chosen)
        rows = sorted(session.table.part("train") + session.table.part("valid"), key=lambda row: row.path)
        pixels = torch.cat([x for x, _ in loaders.plain_loader(session.learn.dls, rows, 64)])

        class Remade:
            shape, dtype = kept.train.arrays[0].shape, np.dtype(np.float32)

            def __getitem__(self, chosen):
                made.append(len(chosen))
                with torch.no_grad():
                    return body.eval()(build.to_network_input(pixels[chosen])).numpy()

        return replace(kept, **{name: replace(getattr(kept, name), arrays=[Remade()]) for name in ("train", "valid")})

    monkeypatch.setattr(depth, "extract", uncached)
    theirs, _ = train_depth(folder, **flags)
    assert sum(made) > 3 * 28 and [phase.name for phase in phases] == ["head", "upper stages"]
    start, _ = train_depth(folder, **{**flags, "epochs": 1, "lr": "1e-9"})
    assert not all(torch.allclose(start[name].float(), ours[name].float(), atol=1e-3) for name in ours), "nothing was learned"
    for name, value in ours.items():
        assert torch.allclose(value.float(), theirs[name].float(), atol=1e-4), name


@pytest.mark.parametrize(
    ("arch", "depths"),
    [
        ("resnet50", (1, 2, 4)),
        ("mobilenetv2_100", (1, 4, 7)),
        ("tf_efficientnet_lite0", (1, 4, 7)),
        ("convnext_atto", (1, 2, 4)),
        ("vit_tiny_patch16_224", (1, 6, 12)),
        ("poolformer_s12", (1, 2, 4)),  # has no group_matcher, only feature_info
    ],
)
def test_known_backbones_at_three_depths(pictures, arch, depths):
    task, chosen = resolved(pictures, "depth", arch=arch, depth=str(depths[0]), epochs=1, freeze_epochs=1, views=2, limit=9)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        for count in depths:  # on the same network, for its initialisation takes longer than its training
            phases, _ = trainer.fit(session, replace(chosen, depth=str(count)))
            assert [phase.name for phase in phases] == ["head", "upper stages"] and len(phases[1].epochs) == 1


def test_a_run_says_how_deep_it_was_trained_and_can_be_repeated(cli, folder):
    first = cli("train", folder, *TINY, "--depth", 2, "--epochs", 2, "--views", 3, "--no-onnx", "--json").json
    assert first["run"].endswith("-depth-2-test_resnet") and first["settings"]["strategy"] == "depth"
    again = cli("train", "--config", f"{first['folder']}/run.json", "--json").json
    assert again["evaluation"] == first["evaluation"] and again["phases"][1]["features"]["images"] == 0
    assert cli("runs", "--json").json[0]["strategy"] == "depth 2"
    page = cli("report", first["folder"], "--json").json["files"][0]
    assert "depth 2 fine-tuning of test_resnet" in Path(page).read_text(encoding="utf-8")
    said = cli("interpret", first["folder"], "--json").json
    assert said["evaluation"]["accuracy"] == pytest.approx(first["evaluation"]["accuracy"])


def test_a_depth_that_the_backbone_has_not(cli, folder, monkeypatch):
    deep = cli("train", folder, *TINY, "--depth", 9)
    assert deep.code == 2 and "--depth 9: test_resnet has 4 stages above its stem" in deep.err and "up to 4, or all" in deep.err
    monkeypatch.delattr(ResNet, "group_matcher")
    monkeypatch.setattr(ResNet, "feature_info", property(lambda self: [], lambda self, value: None), raising=False)
    unsaid = cli("train", folder, *TINY, "--depth", 2)
    assert unsaid.code == 2 and "test_resnet does not declare its stages" in unsaid.err
    assert not runs.list_run_folders("exports")


def test_batchnorm_adapts_with_partial_only(cli, folder):
    outcome = cli("train", folder, *TINY, "--depth", 2, "--train-bn")
    assert outcome.code == 2 and "--train-bn trains on images, but --depth trains on cached activations of the lower stages" in outcome.err
    assert not runs.list_run_folders("exports")
