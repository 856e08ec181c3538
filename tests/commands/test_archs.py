"""tlfast archs: search for a backbone."""

from __future__ import annotations

import tlfast


def test_archs_lists_backbones(cli):
    outcome = cli("archs", "mobilenetv2_1*", "--json")
    assert [found["arch"] for found in outcome.json["backbones"]] == ["mobilenetv2_100", "mobilenetv2_110d", "mobilenetv2_120d", "mobilenetv2_140"]
    assert outcome.json["backbones"][0]["stages"] == 7
    assert outcome.json["others"] > 1000
    outcome = cli("archs", "mobilenetv2_100")
    assert "2.2 M" in outcome.out and "other backbones" in outcome.out
    outcome = cli("archs", "mobilenetv22")
    assert outcome.code == 2 and "no backbone matches 'mobilenetv22'" in outcome.err


def test_without_a_pattern_the_backbones_whose_weights_are_at_hand_are_listed(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("TLFAST_WEIGHTS", str(tmp_path))
    (tmp_path / "test_resnet.safetensors").write_bytes(b"")
    found = {backbone["arch"]: backbone["weights"] for backbone in cli("archs", "--json").json["backbones"]}
    assert found["test_resnet"] == "TLFAST_WEIGHTS"
    assert "hub" not in found.values() and "none" not in found.values()


def test_the_same_from_python():
    table = tlfast.list_archs("mobilenetv2_1*")
    assert table["arch"].tolist()[0] == "mobilenetv2_100"
    assert table["parameters"].tolist()[0] == 2223872
