from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image

import tlfast
from tests.conftest import TINY, draw
from tlfast import prediction
from tlfast.errors import ImageError, RunError, UsageError


@pytest.fixture
def run(cli, folder):
    """A run named "r" of task `pictures`, in the current folder's exports."""
    outcome = cli("train", folder, *TINY, "--epochs", 2, "--name", "r", "--quiet")
    assert outcome.code == 0, outcome.err
    return "exports/pictures"


def test_load_takes_what_people_have(run, folder):
    classifier = tlfast.load(run)
    path = folder / "red" / "1.png"
    answer = classifier.predict(path)
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "PNG")
    for source in (str(path), buffer.getvalue(), Image.open(path), np.asarray(Image.open(path))):
        assert classifier.predict(source) == answer
    assert classifier.classes == ("blue", "green", "red")
    assert answer.label in classifier.classes and answer.probability == max(answer.probabilities.values())
    assert list(answer.probabilities.values()) == sorted(answer.probabilities.values(), reverse=True)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert tlfast.load("pictures").run == tlfast.load("r").run == "r"


def test_load_errors(run):
    with pytest.raises(RunError, match="no run 'nothing'"):
        tlfast.load("nothing")
    with pytest.raises(ImageError):
        tlfast.load(run).predict("no.png")


def test_many_files_keep_their_order_and_equal_one_by_one(run, folder):
    classifier = tlfast.load(run)
    paths = prediction.expand([str(folder)]) * 3
    rows = list(prediction.predict(classifier, paths))
    assert [row.path for row in rows] == paths and len(paths) > prediction.BATCH
    for row in rows[:40:7]:
        assert row.prediction.probabilities == pytest.approx(classifier.predict(row.path).probabilities, abs=1e-5)


def test_expand(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "[odd] name.png", (0, 0, 0), 1)
    assert len(prediction.expand(["pictures"])) == 36
    assert prediction.expand(["pictures/red/1*.png"]) == ["pictures/red/1.png", "pictures/red/10.png", "pictures/red/11.png"]
    assert prediction.expand(["[odd] name.png", "missing.png"]) == ["[odd] name.png", "missing.png"]
    (tmp_path / "void").mkdir()
    with pytest.raises(UsageError, match=r"no images in void, \*.gif"):
        prediction.expand(["void", "*.gif"])


def test_command_names_a_bad_image_and_says_so_by_its_exit_code(run, cli, folder, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    outcome = cli("predict", "pictures", folder / "red" / "1.png", bad, "--json", "--top", 2)
    assert outcome.code == 1
    good, failed = outcome.json
    assert len(good["probabilities"]) == 2 and good["label"] in good["probabilities"]
    assert failed == {"path": str(bad), "error": "not an image that can be read"}
    outcome = cli("predict", "pictures", folder / "red" / "1.png")
    assert outcome.code == 0 and "1.png" in outcome.out


def test_csv_file(run, cli, folder, tmp_path):
    target = tmp_path / "answers.csv"
    assert cli("predict", "pictures", folder / "red", folder / "none.png", "--csv", target).code == 1
    rows = list(csv.DictReader(target.open()))
    assert len(rows) == 13 and rows[-1]["error"].startswith("cannot be read")
    assert sum(float(rows[0][f"p({name})"]) for name in ("blue", "green", "red")) == pytest.approx(1, abs=1e-5)
    again = cli("predict", "pictures", folder / "red", "--csv", target)
    assert again.code == 2 and "the file exists already" in again.err
    assert len(list(csv.DictReader(target.open()))) == 13
