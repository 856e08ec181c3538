"""The classifier: what it takes, and what it answers."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import tlfast
from tlfast.core.errors import ImageError, RunError, UsageError
from tlfast.inference.classifier import open_pixels


@pytest.fixture
def run(run):
    """The folder of the task, with the run "r"."""
    return str(run.folder.parent)


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


def test_objects_that_are_no_images(run, folder):
    classifier = tlfast.load(run)
    with pytest.raises(ImageError, match="neither an image nor the path of one: generator"):
        classifier.predict(path for path in ["a.png"])
    with pytest.raises(UsageError, match="one image is given, and predict_iter takes several"):
        list(classifier.predict_iter(str(folder)))


def test_a_list_and_an_iterator(run, folder):
    classifier = tlfast.load(run)
    paths = [str(folder / "red" / f"{n}.png") for n in range(4)]
    answers = classifier.predict(paths)
    assert [a.label for a in answers] == [classifier.predict(path).label for path in paths]
    assert classifier.predict(tuple(paths)) == answers
    mixed = [paths[0], np.zeros((9, 70, 3), np.uint8), "no.png", Image.new("L", (9, 70)), b"junk", Image.open(paths[1])]
    rows = list(classifier.predict_iter(iter(mixed)))
    assert [bool(row.prediction) for row in rows] == [True, True, False, True, False, True]
    assert [row.path for row in rows] == [paths[0], "", "no.png", "", "", ""]
    assert rows[5].prediction.probabilities == pytest.approx(classifier.predict(paths[1]).probabilities, abs=1e-5)
    with pytest.raises(ImageError, match=r"image 1 \(no.png\): cannot be read"):
        classifier.predict([paths[0], "no.png"])


def test_threads_may_share_one(run, folder):
    classifier = tlfast.load(run)
    paths = [str(path) for path in sorted(folder.rglob("*.png"))]
    alone = [classifier.predict(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(classifier.predict, paths)) == alone


def test_addresses_of_other_protocols_say_what_can_be_read():
    with pytest.raises(ImageError, match="begin with abc:// cannot be read"):
        open_pixels("abc://example.org/a.jpg")


def test_a_classifier_can_be_pickled(run, folder):
    classifier, path = tlfast.load(run), str(folder / "red" / "1.png")
    for other in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        assert other.predict(path) == classifier.predict(path) and other.classes == classifier.classes


@pytest.mark.parametrize("wrong", [{"out": None}, {"tta": True}, {"backend": "fastai", "trust": True, "tta": "flip"}])
def test_wrong_types_of_load(run, wrong):
    with pytest.raises(tlfast.UsageError):
        tlfast.load(run, **wrong)
