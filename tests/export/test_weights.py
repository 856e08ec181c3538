from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

import tlfast
from tests.helpers.drawing import draw
from tlfast import tasks
from tlfast.core import runs
from tlfast.core.errors import RunError, UsageError
from tlfast.data.types import Preprocessing
from tlfast.export import metadata, onnx, weights
from tlfast.inference import classifier as classifier_module
from tlfast.models import build
from tlfast.tasks import resolve
from tlfast.training import records

STATS = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CLASSES = ("ant", "bee", "cat")
# Runs where tlfast cannot be imported; prints each file's probabilities.
PLAIN_FASTAI = r"""
import sys, json, warnings
warnings.simplefilter("ignore")
sys.modules["tlfast"] = None
from fastai.learner import load_learner
learn = load_learner(sys.argv[1])
answers = [learn.predict(path) for path in sys.argv[2:]]  # draws bars, without a newline
print("\n" + json.dumps([[str(label), probabilities.tolist()] for label, _, probabilities in answers]))
"""


@pytest.fixture
def saved(tmp_path):
    """Write a run of a tiny random network; `saved(resize="pad", crop_pct=0.8)` returns its folder."""

    def save(**flags):
        task = tasks.folder_task(tmp_path)
        chosen = resolve.resolve_settings(task, None, {"arch": "test_resnet", "size": 32, "weights": "none", **flags})
        torch.manual_seed(3)
        model = build.build_model("test_resnet", 3, 32)
        with runs.create_run(str(tmp_path / "out"), "t", "r") as (folder, published):
            weights.save_model(folder, model, CLASSES, chosen.arch, Preprocessing.from_settings(chosen, STATS))
            about = metadata.describe_model(chosen, CLASSES, "r", "none", "none: not pretrained")
            onnx.export_onnx(folder / "model.onnx", model, Preprocessing.from_settings(chosen, STATS), about)
            runs.seal(folder, records.build_manifest(chosen, CLASSES, STATS))
        return published[0]

    return save


@pytest.mark.parametrize("flags", [{}, {"resize": "crop"}, {"resize": "pad"}, {"crop_pct": 0.8}, {"resize": "crop", "crop_pct": 0.8}], ids=str)
def test_learner_opens_in_plain_fastai_and_says_the_same(saved, tmp_path, flags):
    folder = saved(**flags)
    pictures = [str(draw(tmp_path / f"{i}.png", (200, 90, 30), i, size)) for i, size in enumerate([(50, 40), (37, 61), (32, 32)])]
    done = subprocess.run([sys.executable, "-c", PLAIN_FASTAI, str(folder / "learner.pkl"), *pictures], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    classifier = classifier_module.load(folder)
    for picture, (label, probabilities) in zip(pictures, answers, strict=True):
        ours = classifier.predict(picture)
        assert label == ours.label
        assert probabilities == pytest.approx([ours.probabilities[name] for name in CLASSES], abs=1e-4)


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
        weights.load_model(runs.read(folder))


PICKLE = b"cos\nmkdir\n(S'opened'\ntR."  # makes the folder `opened`


def test_loading_never_opens_the_pickle(saved, monkeypatch):
    folder = saved()
    monkeypatch.chdir(folder)
    (folder / "learner.pkl").write_bytes(PICKLE)
    assert classifier_module.load(folder, verify=False).predict(np.zeros((8, 8, 3), np.uint8)).label in CLASSES
    weights.load_model(runs.read(folder))
    for trust in (False, True):
        with pytest.raises(RunError, match=r"learner.pkl is not as it was exported"):
            tlfast.load(folder, backend="fastai", trust=trust)
    with pytest.raises(UsageError, match="learner.pkl is a pickle: to open it is to run whatever code is in it"):
        tlfast.load(folder, backend="fastai", verify=False)
    assert not (folder / "opened").exists()
    pickle.loads(PICKLE)  # the test itself can fail
    assert (folder / "opened").exists()


def test_a_trusted_learner_is_fastais(saved):
    learn = tlfast.load(saved(), backend="fastai", trust=True)
    assert tuple(learn.dls.vocab) == CLASSES


def every_file(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_byte_in_any_file_is_refused_by_name(saved):
    folder = saved()
    runs.verify(runs.read(folder))
    assert {path.name for path in every_file(folder)} == {"model.safetensors", "model.onnx", "learner.pkl", "run.json", "run.json.sha256"}
    for path in every_file(folder):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(RunError, match=re.escape(path.name)):
                classifier_module.load(folder)
        path.write_bytes(whole)
    runs.verify(runs.read(folder))


def test_a_file_that_is_gone_is_refused_by_name(saved):
    folder = saved()
    for path in every_file(folder):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(RunError, match=re.escape(path.name) if path.name != "run.json" else "no run"):
            classifier_module.load(folder)
        path.write_bytes(whole)
