"""data check --labels: planted wrong labels, and images that do not belong, are among the first that it names."""

from __future__ import annotations

import csv
import random
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.helpers.command_line import TINY
from tlfast.commands import check_labels


def named(path, kind="label issue"):
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def test_wrong_labels_are_named_with_what_they_look_like(cli, folder):
    (folder / "red" / "0.png").rename(folder / "blue" / "was red.png")
    outcome = cli("data", "check", folder, *TINY, "--epochs", 12, "--labels", "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    rows = named(found["findings_file"])
    assert found["findings"]["label issue"] == len(rows) > 0
    assert any(row["path"].endswith("was red.png") and row["reason"] == "looks like red" and row["label"] == "blue" for row in rows)
    assert [float(row["value"]) for row in rows] == sorted(float(row["value"]) for row in rows)


def test_the_number_of_wrong_labels_is_estimated_and_few_are_listed_below_a_cutoff(cli, folder):
    for number in range(3):
        (folder / "red" / f"{number}.png").rename(folder / "blue" / f"was red {number}.png")
    command = ["data", "check", folder, *TINY, "--epochs", 12, "--labels"]
    every = cli(*command, "--json").json
    few = cli(*command, "--label-cutoff", 0.3, "--json").json
    listed = [float(row["value"]) for row in named(every["findings_file"])]
    assert [float(row["value"]) for row in named(few["findings_file"])] == [value for value in listed if value <= 0.3]
    assert 0 < sum(value <= 0.3 for value in listed) < len(listed)
    assert few["wrong_labels"] == every["wrong_labels"]
    wrong = every["wrong_labels"]
    assert wrong["images"] == 36 and 0 <= wrong["low"] <= wrong["estimate"] <= wrong["high"] <= 36
    assert f"estimated number of wrong labels: {wrong['estimate']} ({wrong['low']} to {wrong['high']}) of 36" in cli(*command).out


@pytest.mark.parametrize("flips", [0, 20, 60])
def test_the_estimate_is_not_too_high_for_a_classifier_that_separates_the_classes(flips):
    draw = np.random.default_rng(3)
    truth = draw.integers(0, 4, 600)
    labels = truth.copy()
    flipped = draw.choice(600, flips, replace=False)
    labels[flipped] = (truth[flipped] + draw.integers(1, 4, flips)) % 4
    probabilities = draw.dirichlet(np.ones(4), 600) * 0.3
    probabilities[np.arange(600), truth] += 0.7
    found = check_labels.estimate_wrong_labels(labels, probabilities)
    assert flips / 2 <= found.estimate <= flips
    assert found.low <= found.estimate <= found.high <= found.low + 50 and found.images == 600


def test_features_find_what_does_not_belong_and_shifted_copies(cli, folder):
    board = Image.fromarray(np.kron(np.indices((16, 16)).sum(axis=0) % 2, np.ones((8, 8))).astype(np.uint8) * 255)
    board.save(folder / "green" / "board.png")
    photo = Image.open(folder / "blue" / "0.png").resize((160, 128)).filter(ImageFilter.GaussianBlur(4))
    photo.crop((0, 0, 150, 120)).save(folder / "blue" / "photo.png")
    photo.crop((3, 3, 153, 123)).save(folder / "blue" / "shifted.png")
    found = cli("data", "check", folder, "--arch", "tf_efficientnet_lite0", "--lr", "3e-3", "--epochs", 1, "--labels", "--json").json
    rows = named(found["findings_file"], "outlier")
    assert rows and rows[0]["path"].endswith("board.png") and float(rows[0]["value"]) > 2
    near = [row for kind in ("near duplicate", "near leak") for row in named(found["findings_file"], kind) if row["reason"] == "confirmed by features"]
    assert [{row["path"].rsplit("/", 1)[1], row["other"].rsplit("/", 1)[1]} for row in near] == [{"photo.png", "shifted.png"}]
    assert [float(row["value"]) for row in rows] == sorted((float(row["value"]) for row in rows), reverse=True)


FOLDED = """
import tlfast
from tlfast.data import Row


def read(root, fold):
    split = lambda n: "test" if n < 2 else "valid" if n < 7 + (fold or 0) % 2 else "train"
    return [Row(str(path), path.parent.name, split(int(path.stem))) for path in sorted(root.glob("*/*.png"))]


TASK = tlfast.Task("folded", "images with official folds", ("blue", "green", "red"), rows=read)
"""


def test_each_image_of_official_folds_is_predicted_once(cli, folder, tmp_path):
    (tmp_path / "folded.py").write_text(FOLDED)
    (folder / "red" / "9.png").rename(folder / "blue" / "99.png")
    found = cli("data", "check", "folded.py", "--data", folder, *TINY, "--epochs", 12, "--labels", "--json").json
    listed = [row["path"] for row in named(found["findings_file"])]
    assert found["wrong_labels"]["images"] == 30 and len(set(listed)) == len(listed)  # of 36 images, 6 are in the test split
    assert str(folder / "blue" / "99.png") in listed


def test_a_limit_applies_to_all_folds_together(cli, folder):
    found = cli("data", "check", folder, *TINY, "--epochs", 1, "--labels", "--limit", 15, "--json").json
    assert found["wrong_labels"]["images"] == 15 + 6  # of train and valid


def test_too_few_images_for_folds(cli, tmp_path, folder):
    for path in sorted((folder / "red").iterdir())[4:]:
        path.unlink()
    outcome = cli("data", "check", folder, *TINY, "--labels")
    assert outcome.code == 1 and "fewer than the 5 folds" in outcome.err


@pytest.mark.real
@pytest.mark.slow
def test_twenty_planted_flips_in_seedlings(cli, shared, tmp_path):
    with zipfile.ZipFile(shared / "data" / "seedlings.zip") as archive:
        archive.extractall(tmp_path)
    for n, path in enumerate(sorted(tmp_path.rglob("*/*/*.jpg"))):
        if n % 5:  # a fifth of the images suffices, in a fifth of the time
            path.unlink()
    images = sorted(tmp_path.rglob("train/*/*"))
    labels = sorted({path.parent.name for path in images})
    draw = random.Random(7)
    flipped = set()
    for path in draw.sample(images, 20):
        wrong = draw.choice([label for label in labels if label != path.parent.name])
        flipped.add(path.rename(path.parent.parent / wrong / f"flipped {path.name}").name)
    weights = ["--weights", shared / "weights" / "mobilenetv2_100.safetensors"]
    root = images[0].parents[2]
    found = cli("data", "check", root, "--arch", "mobilenetv2_100", *weights, "--labels", "--json").json
    first = [row["path"].rsplit("/", 1)[1] for row in named(found["findings_file"])[:60]]
    assert len(flipped & set(first)) >= 15  # by chance it would be less than one
    assert 20 <= found["wrong_labels"]["estimate"] < 160  # of 805: images that the network cannot tell apart count too
