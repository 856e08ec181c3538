"""Odd images have one outcome, whoever reads them: a training, a data check, a prediction, a server. And nothing but our errors leaves a reader."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest

from tests.helpers.command_line import TINY
from tests.helpers.odd import CORPUS, picture, saved
from tests.helpers.serving import IMAGE, ask, serving_at
from tlfast.core.errors import ImageError
from tlfast.data import images
from tlfast.testing import COLOURS, draw_image

BAD = {name: odd.reason for name, odd in CORPUS.items() if odd.reason}

# What only a file system can do to an image; the reason is the system's own word.
LINKS = {"gone.png": "No such file", "circle.png": "symbolic links"}


def outcome(data: bytes) -> str:
    """Return why an image cannot be read; "" where it can."""
    try:
        images.decode(data)
    except ImageError as error:
        return error.message
    return ""


@pytest.mark.parametrize("name", CORPUS)
def test_the_table(name):
    data = CORPUS[name].make()
    said = outcome(data)
    assert re.search(CORPUS[name].reason, said) if CORPUS[name].reason else not said
    if not said:
        pixels = images.prepare(images.decode(data), 32, 32, "squish")
        assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_upright(orientation):
    width, height = images.decode(CORPUS[f"orientation {orientation}.jpg"].make()).size
    assert (width, height) == ((40, 32) if orientation < 5 else (32, 40))


@pytest.mark.parametrize("name", ["deep grey.png", "deep colour.png", "float.tif", "animated.gif", "animated.webp", "animated.png", "two pictures.jpg"])
def test_the_picture_is_what_it_was(name):
    wanted = np.asarray(picture("L" if name in ("deep grey.png", "float.tif") else "RGB").convert("RGB")).astype(int)
    assert np.abs(np.asarray(images.decode(CORPUS[name].make())).astype(int) - wanted).mean() < 12  # GIF and JPEG lose a little


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three classes of 80 good images; among the red ones the whole corpus, links, and folders that are called like images."""
    root = tmp_path_factory.mktemp("corpus")
    for label, colour in COLOURS.items():
        for n in range(80):
            draw_image(root / "odd" / label / f"{n}.png", colour, n)
    red = root / "odd" / "red"
    for name, odd in CORPUS.items():
        (red / name).write_bytes(odd.make())
    (root / "outside.png").write_bytes(saved(picture(), "PNG"))
    (red / "link.png").symlink_to(root / "outside.png")
    (red / "gone.png").symlink_to(root / "nowhere.png")
    (red / "circle.png").symlink_to(red / "circle.png")
    (red / "folder.jpg").mkdir()
    (red / "around").symlink_to(red)
    return root / "odd"


def assert_named(said: dict[str, str]) -> None:
    """Check that exactly the bad ones are named, by the reasons that the table gives."""
    assert said.keys() == BAD.keys() | LINKS.keys()
    for name, reason in said.items():
        if name in BAD:
            assert reason == outcome(CORPUS[name].make())
        else:
            assert LINKS[name] in reason


def unreadable(summary: dict) -> dict[str, str]:
    return {bad["path"].rsplit("/", 1)[1]: bad["reason"] for bad in summary["unreadable"]}


@pytest.mark.parametrize("store", ["auto", "off"])
def test_a_training_skips_and_names_them(cli, corpus, store):
    outcome = cli("train", corpus, *TINY, "--epochs", 1, "--store", store, "--no-onnx", "--json")
    assert outcome.code == 0, outcome.err
    assert_named(unreadable(outcome.json["data"]))
    assert sum(outcome.json["data"]["counts"][part]["red"] for part in ("train", "valid")) == 80 + len(CORPUS) - len(BAD) + 1


def test_a_data_check_names_them(cli, corpus):
    found = cli("data", "check", corpus, "--json")
    assert found.code == 1
    assert_named(unreadable(found.json))


def test_a_prediction_names_them(cli, corpus, tmp_path):
    assert cli("train", corpus, *TINY, "--epochs", 1, "--quiet").code == 0
    outcome = cli("predict", "odd", corpus, "--csv", "answers.csv", "--json")
    assert outcome.code == 1
    assert_named({row["path"].rsplit("/", 1)[1]: row["error"] for row in outcome.json if "error" in row})
    with open("answers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240 + len(CORPUS) + 1 + len(LINKS)
    assert_named({row["path"].rsplit("/", 1)[1]: row["error"] for row in rows if row["error"]})


def test_a_server_names_them(classifier):
    said = {}
    with serving_at(classifier) as (port, _):
        for name, odd in CORPUS.items():
            status, answer = ask(port, "POST", "/predict", odd.make() or b"\0", IMAGE)
            assert (status == 200) == (name not in BAD), (name, answer)
            if status != 200:
                assert 400 <= status < 500
                said[name] = json.dumps(answer, ensure_ascii=False)
    for name, text in said.items():
        wanted = outcome(CORPUS[name].make() or b"\0")
        assert wanted.split(" (")[0] in text or name == "bomb.png", (name, text)  # a server's own limit is lower


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(cli, folder):
    (folder / "red" / "0.png").chmod(0)
    found = cli("data", "check", folder, "--json")
    assert found.code == 1 and "Permission denied" in found.json["unreadable"][0]["reason"]


def test_a_name_that_is_not_utf8_is_left_out_and_named(cli, folder):
    shutil.copy(folder / "red" / "0.png", os.fsencode(folder / "red") + b"/odd\xff.png")
    for command in (["data", "check", folder], ["train", folder, *TINY, "--epochs", 1]):
        outcome = cli(*command)
        assert outcome.code == 0, outcome.err
        assert r"images whose names are not UTF-8 are left out: 1, the first: " in outcome.out + outcome.err
        assert r"odd\udcff.png" in outcome.out + outcome.err


def test_only_names_that_are_not_utf8_are_an_error(cli, folder, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "odd" / label).mkdir(parents=True)
        shutil.copy(folder / "red" / "0.png", os.fsencode(tmp_path / "odd" / label) + b"/odd\xff.png")
    outcome = cli("train", "odd", *TINY, "--epochs", 1)
    assert outcome.code == 1 and "the names of all 2 images are not UTF-8" in outcome.err and "PYTHONUTF8=1" in outcome.err
