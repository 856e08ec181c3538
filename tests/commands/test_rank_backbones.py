"""`tlfast compare --archs auto`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import tlfast
from tlfast.commands import compare, rank_backbones
from tlfast.tasks import folder_task, resolve_settings

QUICK = ["--arms", "partial", "--size", 32, "--epochs", 1, "--views", 1]


@pytest.fixture
def weights(cli, tmp_path, monkeypatch):
    """A folder of weights with one tiny network, besides the installed backbone."""
    torch.manual_seed(0)
    (tmp_path / "weights").mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights" / "test_resnet.safetensors")
    monkeypatch.setenv("TLFAST_WEIGHTS", str(tmp_path / "weights"))


def test_the_two_best_of_the_ranking_are_compared(cli, weights, pictures):
    outcome = cli("compare", pictures, *QUICK, "--archs", "auto", "--json")
    assert outcome.code == 0, outcome.err
    ranking = outcome.json["ranking"]
    assert {each["arch"] for each in ranking} == {"test_resnet", "tf_efficientnet_lite0"}
    assert [each["score"] for each in ranking] == sorted((each["score"] for each in ranking), reverse=True)
    assert all(each["images"] > 20 and each["features"] > 0 for each in ranking)
    assert [arm["name"] for arm in outcome.json["arms"]] == [f"partial {each['arch']}" for each in ranking]
    assert "ranking: LogME of" in outcome.err and "compared are the first 2" in outcome.err
    assert json.loads(Path(outcome.json["folder"], "comparison.json").read_text())["ranking"] == ranking
    in_python = tlfast.compare(pictures, arms=["partial"], archs="auto", size=32, epochs=1, views=1, quiet=True)
    assert list(in_python.ranking["arch"]) == [each["arch"] for each in ranking]
    assert len(in_python.table) == 2


def test_batches_of_open_size_are_not_empty_when_features_are_computed(weights, pictures, monkeypatch):
    sizes, compute = [], rank_backbones.compute_plain
    monkeypatch.setattr(rank_backbones, "compute_plain", lambda *arguments: sizes.append(arguments[3].bs) or compute(*arguments))
    task = folder_task(pictures)
    rank_backbones.choose_backbones(task, resolve_settings(task, None, {"data": str(pictures), "bs": "auto", "size": 32}))
    assert len(sizes) == 2 and min(sizes) > 0


def test_one_backbone_is_no_choice(cli, pictures):
    outcome = cli("compare", pictures, *QUICK, "--archs", "auto")
    assert outcome.code == 2 and "--archs auto: without a download there are weights of 1 backbone" in outcome.err and "TLFAST_WEIGHTS" in outcome.err


def test_weights_of_one_backbone_do_not_fit_all(cli, pictures):
    outcome = cli("compare", pictures, *QUICK, "--archs", "auto", "--weights", "none")
    assert outcome.code == 2 and "--archs auto is given with --weights none" in outcome.err


def test_minutes_are_divided_and_choose_the_depth(cli, weights, pictures):
    outcome = cli("compare", pictures, "--size", 32, "--epochs", 1, "--bs", 8, "--archs", "auto", "--minutes", 0.4, "--json")
    assert outcome.code == 0, outcome.err
    assert [arm["settings"]["minutes"] for arm in outcome.json["arms"]] == [0.2, 0.2]
    assert [arm["name"] for arm in outcome.json["arms"]] == [f"depth auto {each['arch']}" for each in outcome.json["ranking"]]
    refused = cli("compare", pictures, *QUICK, "--archs", "auto", "--minutes", 0.4)
    assert refused.code == 2 and "--arms partial is given with --minutes, which chooses the depth" in refused.err
    with pytest.raises(tlfast.UsageError, match="minutes=-1.* must be at least"):
        tlfast.compare(pictures, archs="auto", minutes=-1, size=32, quiet=True)


@pytest.mark.parametrize(("flags", "config"), [({"preset": "quick"}, {}), ({}, {"preset": "quick"}), ({"preset": "best", "minutes": 2.0}, {"depth": 2})])
def test_a_preset_with_a_time_budget_chooses_the_depth(pictures, monkeypatch, flags, config):
    ranked = [rank_backbones.RankedBackbone(arch, 1.0, 8, 10, 0.0) for arch in ("test_resnet", "test_vit")]
    monkeypatch.setattr(rank_backbones, "choose_backbones", lambda *given: ranked)
    task = folder_task(pictures)
    request = rank_backbones.choose_archs(task, compare.ArmsRequest(["partial", "full"], ["auto"], flags, config))
    arms = compare.build_arms(task, request.kinds, request.archs, request.flags, request.config)
    assert [(arm.settings.arch, arm.settings.depth, arm.settings.minutes) for arm in arms] == [("test_resnet", "auto", 1.0), ("test_vit", "auto", 1.0)]
    assert all(arm.settings.epochs == (30 if flags.get("preset") == "best" else 10) for arm in arms)


def test_of_many_classes_more_images_are_ranked(weights, pictures, monkeypatch):
    monkeypatch.setattr(rank_backbones, "SAMPLE", 2)  # below the number of classes
    task = folder_task(pictures)
    ranked = rank_backbones.choose_backbones(task, resolve_settings(task, None, {"data": str(pictures), "size": 32}))
    assert [each.images for each in ranked] == [3 * rank_backbones.OF_EACH_CLASS] * 2
