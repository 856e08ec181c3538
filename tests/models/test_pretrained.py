from __future__ import annotations

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save

from tests.helpers.hub import Repository
from tlfast.core.errors import UsageError, WeightsError
from tlfast.models import build, pretrained
from tlfast.models.weights import hash_weights

NOWHERE = "http://127.0.0.1:9"  # no server listens there


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
    with pytest.raises(UsageError, match="a folder, not a file") as caught:
        pretrained.find_weights("resnet50", str(tmp_path))
    assert "TLFAST_WEIGHTS" in caught.value.hint
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


@pytest.fixture(scope="module")
def weights() -> tuple[bytes, str]:
    """A file such as the hub has for test_resnet, and the fingerprint of the body in it."""
    cfg = timm.get_pretrained_cfg("test_resnet")
    model = timm.create_model("test_resnet", num_classes=cfg.num_classes)
    data = save(model.state_dict())
    model.reset_classifier(0)
    return data, hash_weights(model)


def build_and_hash() -> str:
    return hash_weights(build.build_body(pretrained.find_weights("test_resnet", "auto"), 32))


def test_weights_come_from_the_hub_and_then_from_its_cache(model_hub, weights, monkeypatch):
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    repository = Repository()
    repository.commit({"model.safetensors": weights[0]})
    model_hub.repositories[timm.get_pretrained_cfg("test_resnet").hf_hub_id] = repository
    assert build_and_hash() == weights[1] and model_hub.downloaded == ["model.safetensors"]
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", NOWHERE + "/{repo_id}/resolve/{revision}/{filename}")
    assert build_and_hash() == weights[1]


def test_no_hub_names_the_ways_out(model_hub, monkeypatch):
    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    with pytest.raises(WeightsError, match="no weights for 'test_resnet': the hub cannot be reached") as caught:
        build_and_hash()
    assert all(way in caught.value.hint for way in ("--weights FILE", "TLFAST_WEIGHTS", "--arch tf_efficientnet_lite0"))
