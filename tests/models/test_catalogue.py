"""Backbones by name."""

from __future__ import annotations

import pytest
import timm

from tlfast.core import UsageError
from tlfast.models import catalogue


def test_the_names_are_those_of_timm_and_are_read_from_the_cache_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path))
    assert catalogue.list_names() == timm.list_models()
    monkeypatch.setattr(timm, "list_models", lambda: pytest.fail("timm was asked again"))
    assert "resnet50" in catalogue.list_names()


def test_a_part_of_a_name_or_a_pattern_is_matched():
    names = ["resnet50", "wide_resnet50_2", "resnet18", "vit_tiny"]
    assert catalogue.match_names("resnet50", names) == ["resnet50", "wide_resnet50_2"]
    assert catalogue.match_names("resnet??", names) == ["resnet50", "resnet18"]
    with pytest.raises(UsageError, match="no backbone matches 'resnet55'") as error:
        catalogue.match_names("resnet55", names)
    assert "resnet50" in error.value.hint
    with pytest.raises(UsageError) as error:
        catalogue.match_names("zzz", names)
    assert "pattern" in error.value.hint


def test_the_facts_are_those_of_the_network():
    (found,) = catalogue.describe_backbones(["resnet18"], lambda event: None)
    body = timm.create_model("resnet18", num_classes=0)
    assert found.parameters == sum(parameter.numel() for parameter in body.parameters())
    assert (found.stages, found.size, found.licence) == (4, 224, "apache-2.0")


def test_a_network_that_timm_cannot_build_is_listed_without_its_size(monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("needs another package")

    monkeypatch.setattr(timm, "create_model", fail)
    (found,) = catalogue.describe_backbones(["resnet18"], lambda event: None)
    assert (found.parameters, found.stages) == (None, 0)


def test_weights_are_in_the_folder_in_the_cache_of_the_hub_on_the_hub_or_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TLFAST_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet18.safetensors").write_bytes(b"")
    monkeypatch.setattr(catalogue, "is_in_hub_cache", lambda repository: repository == "timm/resnet34.a1_in1k")
    names = ["resnet18", "resnet34", "resnet50", "mobilenetv3_large_075"]
    assert [catalogue.locate_weights(name) for name in names] == ["TLFAST_WEIGHTS", "hub cache", "hub", "none"]
    assert catalogue.list_at_hand(names) == ["resnet18", "resnet34"]


def test_a_cache_that_cannot_be_written_to_is_not_needed(tmp_path, monkeypatch):
    (tmp_path / "cache").touch()
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "cache"))
    assert catalogue.list_names() == timm.list_models()
