from __future__ import annotations

import json
import re

import pytest
from safetensors import safe_open

from tests.helpers.models import CLASSES
from tlfast.core import runs
from tlfast.core.errors import RunError
from tlfast.export import weights
from tlfast.inference import classifier as classifier_module


def test_header_of_the_weights_file_is_enough_to_use_it(saved):
    with safe_open(saved() / "model.safetensors", "pt") as file:
        header = file.metadata()
    assert json.loads(header["classes"]) == list(CLASSES)
    assert (header["arch"], header["mean"], header["std"]) == ("test_resnet", "0.4,0.5,0.6", "0.2,0.25,0.3")


def test_a_cut_weights_file_is_an_error(saved):
    folder = saved()
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(RunError, match=r"model.safetensors cannot be loaded"):
        weights.load_model(runs.read_run(folder))


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_byte_in_any_file_is_refused_by_name(saved):
    folder = saved()
    runs.verify(runs.read_run(folder))
    assert {path.name for path in every_file(folder)} == {"model.safetensors", "model.onnx", "learner.pkl", "run.json", "run.json.sha256"}
    for path in every_file(folder):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(RunError, match=re.escape(path.name)):
                classifier_module.load(folder)
        path.write_bytes(whole)
    runs.verify(runs.read_run(folder))


def test_a_file_that_is_gone_is_refused_by_name(saved):
    folder = saved()
    for path in every_file(folder):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(RunError, match=re.escape(path.name) if path.name != "run.json" else "no run"):
            classifier_module.load(folder)
        path.write_bytes(whole)
