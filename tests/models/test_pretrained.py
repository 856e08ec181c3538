from __future__ import annotations

import pytest

from tlfast.core.errors import UsageError
from tlfast.models import pretrained


def test_order_of_resolution(tmp_path, monkeypatch):
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    given = tmp_path / "given.safetensors"
    given.touch()
    (tmp_path / "resnet50.safetensors").touch()
    assert pretrained.find_weights("resnet50", "auto").kind == "hub"
    monkeypatch.setenv("TLFAST_WEIGHTS", str(tmp_path))
    found = pretrained.find_weights("resnet50", "auto")
    assert (found.kind, found.path) == ("folder", str(tmp_path / "resnet50.safetensors"))
    assert pretrained.find_weights("resnet18", "auto").kind == "hub"
    assert pretrained.find_weights("resnet50", str(given)).path == str(given)
    assert pretrained.find_weights("resnet50", "none").kind == "none"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"--weights none.pth: no such file"):
        pretrained.find_weights("resnet50", "none.pth")
    (tmp_path / "w.txt").touch()
    with pytest.raises(UsageError, match=r"'.txt' is not a weights file"):
        pretrained.find_weights("resnet50", str(tmp_path / "w.txt"))


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("TLFAST_WEIGHTS", "/no/such/place")
    with pytest.raises(UsageError, match="TLFAST_WEIGHTS is '/no/such/place', which is not a folder"):
        pretrained.find_weights("resnet50", "auto")


def test_the_ways_out_are_three():
    hint = pretrained.suggest_sources("resnet50")
    assert "--weights FILE" in hint and "TLFAST_WEIGHTS" in hint and "tlfast[embedded]" in hint
