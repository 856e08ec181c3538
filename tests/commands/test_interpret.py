from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from PIL import Image

from tests.helpers.command_line import TINY
from tests.helpers.runs import copy_run, train_in
from tlfast.commands import interpret, loaded_run
from tlfast.core import runs
from tlfast.evaluation import evaluate, plots
from tlfast.evaluation.types import Predictions
from tlfast.testing import draw_classes, draw_image


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """A run on images of which two have a wrong label."""
    root = tmp_path_factory.mktemp("mislabelled")
    images = draw_classes(root / "pictures")
    for i in range(2):
        draw_image(images / "blue" / f"wrong{i}.png", (230, 30, 30), 50 + i)  # a red disc among the blue
    return train_in(root, images, "r", "--epochs", 2)


@pytest.fixture
def run(cli, mislabelled, tmp_path):
    copy_run(mislabelled, tmp_path)
    return runs.find("pictures")


def test_pictures_and_tables(run, cli):
    outcome = cli("interpret", "pictures", "--k", 5, "--json")
    assert outcome.code == 0
    answer = outcome.json
    trained = json.loads((run.folder / "metrics.json").read_text())  # of the same images and the same model, from features in float16
    assert answer["evaluation"]["confusion"] == trained["confusion"]
    assert answer["evaluation"]["log_loss"] == pytest.approx(trained["log_loss"], rel=1e-3)
    assert [Image.open(path).size[0] > 500 for path in answer["pictures"]] == [True, True]
    assert len(answer["top_losses"]) == 5
    assert list(answer["top_losses"][0]) == ["path", "actual", "predicted", "probability", "probability_of_actual", "loss"]
    losses = [item["loss"] for item in answer["top_losses"]]
    assert losses == sorted(losses, reverse=True)
    assert all(item["loss"] == pytest.approx(-np.log(item["probability_of_actual"]), abs=1e-3) for item in answer["top_losses"])
    table = list(csv.DictReader((run.folder / "plots" / "per_class.csv").read_text().splitlines()))
    assert [row["name"] for row in table] == ["blue", "green", "red", "macro", "weighted"]
    assert float(table[0]["f1"]) == answer["evaluation"]["per_class"][0]["f1"]
    counts = [pair["count"] for pair in answer["confused"]]
    assert counts == sorted(counts, reverse=True)


def test_one_pass_gives_what_fastai_gives(run, monkeypatch):
    model = loaded_run.load_run(run, "", "auto", lambda event: None)
    model = replace(model, settings=replace(model.settings, amp="off"))  # as fastai computes
    ours = interpret.build_interpretation(model, loaded_run.predict_split(model, "valid", lambda event: None))
    with ours.learn.no_bar():
        theirs = ClassificationInterpretation.from_learner(ours.learn, dl=ours.dl)
        assert (theirs.confusion_matrix() == ours.confusion_matrix()).all()
        assert theirs.losses.numpy() == pytest.approx(ours.losses.numpy(), abs=1e-4)
        expected = theirs.most_confused()

    def forbidden(*args, **kwargs):
        raise AssertionError("the network was run again")

    monkeypatch.setattr(Learner, "get_preds", forbidden)
    assert ours.most_confused() == expected


def test_a_part_that_is_not_there(run, cli):
    outcome = cli("interpret", "pictures", "--split", "test")
    assert outcome.code == 1 and "the data of r has no test split" in outcome.err
    assert cli("interpret", "pictures", "--split", "all").code == 2


def test_moved_and_changed_images(cli, folder, tmp_path):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet").code == 0
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    gone = cli("interpret", "pictures")
    assert gone.code == 1 and "no such folder or file" in gone.err
    found = cli("interpret", "pictures", "--data", moved)
    assert found.code == 0 and "differ from those" not in found.err
    draw_image(moved / "red" / "0.png", (0, 0, 0), 3, size=(90, 90))
    assert "differ from those that r was trained on" in cli("interpret", "pictures", "--data", moved).err


@pytest.mark.parametrize("count", [2, 12, 100])
def test_matrix_of_any_size_fits_its_names(tmp_path, count):
    names = [f"A class of plants number {i}" for i in range(count)]
    labels = np.repeat(np.arange(count), 12)
    said = np.random.default_rng(0).normal(size=(len(labels), count)) + 4 * np.eye(count)[labels]
    judged = evaluate(Predictions([], names, said, labels), "valid", 1.0)
    picture = Image.open(plots.plot_confusion_matrix(judged, tmp_path / "m.png", "title"))
    assert picture.size[0] > picture.size[1] and max(picture.size) < 6000
    edges = np.asarray(picture.convert("L"))
    assert edges[:, :3].min() == edges[:, -3:].min() == edges[-3:].min() == 255  # nothing runs over the edge
