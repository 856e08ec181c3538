"""Odd images have one outcome, whoever reads them: a training, a data check, a prediction, a server. And nothing but our errors leaves a reader."""

from __future__ import annotations

import csv
import json
import os
import re
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.command_line import TINY
from tests.helpers.drawing import COLOURS, draw
from tests.helpers.odd import CORPUS, picture, saved
from tests.helpers.serving import IMAGE, ask, serving_at
from tlfast import tasks
from tlfast.core import runs
from tlfast.core.config_files import read_config, read_manifest, settings_to_repeat
from tlfast.core.errors import ImageError, TlfastError
from tlfast.data import images
from tlfast.data.discovery import list_members
from tlfast.data.table import load_table
from tlfast.tasks.resolve import resolve_settings

BAD = {name: odd.reason for name, odd in CORPUS.items() if odd.reason}
# What only a file system can do to an image; the reason is the system's own word.
LINKS = {"gone.png": "No such file", "circle.png": "symbolic links"}
FUZZ = settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))


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
            draw(root / "odd" / label / f"{n}.png", colour, n)
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


# Tables


def listed(tmp_path, text: str, name: str = "list.csv", **flags):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_table(tasks.folder_task(path), resolve_settings(tasks.folder_task(path), None, {"data": str(path), **flags}), path)


def test_windows_paths_in_a_table(tmp_path, folder):
    names = [(f"pictures\\{label}\\{n}.png", label) for label in COLOURS for n in range(12)]
    table = listed(tmp_path, "\ufeffpath;label\r\n" + "".join(f"{name};{label}\r\n" for name, label in names))
    assert len(table.rows) == 36 and all(os.path.isfile(row.path) for row in table.rows)


def test_an_image_that_is_named_again(tmp_path, folder):
    lines = [f"pictures/{label}/{n}.png,{label}" for label in COLOURS for n in range(12)]
    table = listed(tmp_path, "path,label\n" + "\n".join([*lines, lines[0], lines[0]]))
    assert len(table.rows) == 36 and "2 rows name an image again and are left out" in table.notes
    with pytest.raises(TlfastError, match="line 38: .*0.png was another row already, with another label"):
        listed(tmp_path, "path,label\n" + "\n".join([*lines, "pictures/blue/0.png,red"]))


def test_labels_that_are_numbers_and_a_class_that_only_judges(cli, tmp_path, folder):
    rows = [(f"pictures/{label}/{n}.png", str(k), "train" if n < 9 else "valid") for k, label in enumerate(COLOURS) for n in range(12)]
    (tmp_path / "n.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    done = cli("train", tmp_path / "n.csv", *TINY, "--epochs", 1, "--no-onnx", "--json")
    assert done.code == 0 and [score["name"] for score in done.json["evaluation"]["per_class"]] == ["0", "1", "2"]
    (tmp_path / "v.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows if row[1] != "2" or row[2] == "valid"))
    refused = cli("train", tmp_path / "v.csv", *TINY, "--epochs", 1)
    assert refused.code == 1 and "'2'" in refused.err and "Traceback" not in refused.err


def test_two_images_in_all(cli, tmp_path):
    draw(tmp_path / "two" / "a" / "1.png", COLOURS["red"], 1)
    draw(tmp_path / "two" / "b" / "1.png", COLOURS["blue"], 1)
    refused = cli("train", tmp_path / "two", *TINY, "--epochs", 1)
    assert refused.code == 1 and "error:" in refused.err and "Traceback" not in refused.err


@pytest.mark.parametrize("strategy", ["--partial", "--full"])
def test_a_last_batch_of_one(cli, folder, strategy):
    done = cli("train", folder, *TINY, "--bs", 7, "--epochs", 1, strategy, "--no-onnx", "--json")  # 29 train, one is left
    assert done.code == 0, done.err


@pytest.mark.slow
def test_many_classes(cli, tmp_path):
    rng = np.random.default_rng(0)
    for c in range(1000):
        for n in range(2):
            path = tmp_path / "many" / f"{c:04d}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    done = cli("train", tmp_path / "many", *TINY, "--valid-pct", 0.5, "--epochs", 1, "--bs", 64, "--json")
    assert done.code == 0, done.err
    assert len(done.json["evaluation"]["per_class"]) == 1000


def test_two_members_of_a_zip_that_are_called_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for _ in range(2):
            archive.writestr("a/1.png", saved(picture(), "PNG"))
    assert list_members(tmp_path / "twice.zip") == ["a/1.png"]


# Anything at all

SEEDS = {name: odd.make() for name, odd in CORPUS.items() if not odd.reason and len(odd.make()) < 8000}


@pytest.mark.slow
@FUZZ
@given(st.sampled_from(sorted(SEEDS)), st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=12), st.integers(0, 8000))
def test_no_other_error_leaves_the_decoder(name, changes, length):
    data = bytearray(SEEDS[name])
    for place, value in changes:
        data[place % len(data)] = value
    whole = bytes(data)
    for each in (whole, whole[: length % (len(whole) + 1)]):
        try:
            assert images.decode(each).mode == "RGB"
        except ImageError as error:
            assert error.message
        with suppress(ImageError):
            images.describe(each)


@FUZZ
@given(st.binary(max_size=400))
def test_no_other_error_leaves_the_decoder_of_bytes(data):
    try:
        images.decode(data)
    except ImageError as error:
        assert error.message


CELLS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


@FUZZ
@given(st.one_of(st.binary(max_size=300), st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6).map(lambda rows: "path,label\n" + "\n".join(rows))))
def test_no_other_error_leaves_the_reader_of_tables(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    try:
        listed(folder, content, "fuzz.csv")
    except TlfastError as error:
        assert error.message


KEYS = st.sampled_from(["settings", "task", "classes", "files", "data", "source", "mean", "exports", "x"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=8)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@FUZZ
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_no_other_error_leaves_the_readers_of_manifests(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    (folder / runs.MANIFEST).write_bytes(content)
    (folder / "settings.toml").write_bytes(content)
    manifest, config = str(folder / runs.MANIFEST), str(folder / "settings.toml")
    for read in (lambda: runs.verify(runs.read(folder)), lambda: settings_to_repeat(read_manifest(manifest)), lambda: read_config(config)):
        try:
            read()
        except TlfastError as error:
            assert error.message


@FUZZ
@given(st.binary(max_size=400), st.integers(0, 600))
def test_no_other_error_leaves_the_reader_of_zips(tmp_path_factory, noise, place):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "fuzz.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", SEEDS["one pixel.png"])
    data = bytearray(path.read_bytes())
    data[place % len(data) : place % len(data) + len(noise) // 8] = noise[: len(noise) // 8]
    path.unlink()
    path.write_bytes(data)
    images._archive.cache_clear()
    try:
        for name in list_members(path):
            images.open_image(f"{path}!/{name}")
    except TlfastError as error:
        assert error.message
