"""learner.pkl: what plain fastai makes of it, and that it is never opened unasked."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

import tlfast
from tests.helpers.models import CLASSES
from tlfast.core import runs
from tlfast.core.errors import RunError, UsageError
from tlfast.export import weights
from tlfast.inference import classifier as classifier_module
from tlfast.testing import draw_image

# Runs where tlfast cannot be imported; prints the probabilities of each learner for each picture.
PLAIN_FASTAI = r"""
import sys, json, warnings
warnings.simplefilter("ignore")
sys.modules["tlfast"] = None
from fastai.learner import load_learner
learners, pictures = json.loads(sys.argv[1])
answers = []
for path in learners:
    learn = load_learner(path)
    answers.append([learn.predict(picture) for picture in pictures])  # draws bars, without a newline
print("\n" + json.dumps([[[str(label), probabilities.tolist()] for label, _, probabilities in each] for each in answers]))
"""


def test_learner_opens_in_plain_fastai_and_says_the_same(saved, tmp_path):
    folders = [saved(**flags) for flags in ({}, {"resize": "crop"}, {"resize": "pad"}, {"crop_pct": 0.8}, {"resize": "crop", "crop_pct": 0.8})]
    assert len(set(folders)) == len(folders)
    pictures = [str(draw_image(tmp_path / f"{i}.png", (200, 90, 30), i, size)) for i, size in enumerate([(50, 40), (37, 61), (32, 32)])]
    arguments = json.dumps([[str(folder / "learner.pkl") for folder in folders], pictures])
    done = subprocess.run([sys.executable, "-c", PLAIN_FASTAI, arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    for folder, answers_of_learner in zip(folders, answers, strict=True):
        classifier = classifier_module.load(folder)
        for picture, (label, probabilities) in zip(pictures, answers_of_learner, strict=True):
            ours = classifier.predict(picture)
            assert label == ours.label
            assert probabilities == pytest.approx([ours.probabilities[name] for name in CLASSES], abs=1e-4)


PICKLE = b"cos\nmkdir\n(S'opened'\ntR."  # makes the folder `opened`


def test_loading_never_opens_the_pickle(saved, monkeypatch):
    folder = saved()
    monkeypatch.chdir(folder)
    (folder / "learner.pkl").write_bytes(PICKLE)
    assert classifier_module.load(folder, verify=False).predict(np.zeros((8, 8, 3), np.uint8)).label in CLASSES
    weights.load_model(runs.read_run(folder))
    for trust in (False, True):
        with pytest.raises(RunError, match=r"learner.pkl was changed after the export"):
            tlfast.load(folder, backend="fastai", trust=trust)
    with pytest.raises(UsageError, match="learner.pkl is a pickle: opening it executes the code in it"):
        tlfast.load(folder, backend="fastai", verify=False)
    with pytest.raises(UsageError, match="unknown backend 'torch'"):
        tlfast.load(folder, backend="torch", verify=False, trust=True)
    assert not (folder / "opened").exists()
    pickle.loads(PICKLE)  # the test itself can fail
    assert (folder / "opened").exists()


def test_a_trusted_learner_is_fastais(saved):
    learn = tlfast.load(saved(), backend="fastai", trust=True)
    assert tuple(learn.dls.vocab) == CLASSES
