"""A finished run, loaded on any machine."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tarfile

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.files import image_bytes
from tlfast.commands.loaded_run import list_split
from tlfast.core import runs
from tlfast.core.runs import seal
from tlfast.testing import draw_image


@pytest.mark.parametrize("command", ["interpret", "evaluate", "report"])
def test_a_run_of_a_gpu_opens_where_there_is_none(command, run, cli):
    seal(run.folder, {**run.manifest, "settings": {**run.manifest["settings"], "device": "cuda"}})
    outcome = cli(command, "r", "--json")
    assert outcome.code == 0, outcome.out
    outcome = cli(command, "r", "--device", "mps")
    assert outcome.code == 2 and "--device mps: torch finds no such device" in outcome.err and "--device auto" in outcome.err


def arrange(folder, layout):
    """Move the images of class folders into those of splits."""
    for label in ("red", "green", "blue"):
        for split, numbers in layout.items():
            for number in numbers:
                target = folder / split / label / f"{number}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / label / f"{number}.png").rename(target)
        (folder / label).rmdir()


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize(
    ("layout", "flags"),
    [({}, ()), ({}, ("--fold", 2)), ({"train": range(9), "test": range(9, 12)}, ()), ({"train": range(9), "valid": range(9, 12)}, ("--fold", 2))],
    ids=["drawn", "fold", "train and test", "fold of train and valid"],
)
def test_images_keep_their_splits_when_others_are_added(cli, folder, tmp_path, moved, layout, flags):
    if layout:
        arrange(folder, layout)
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet", *flags).code == 0
    with open(tmp_path / "exports/pictures/r/images.csv", newline="") as file:
        trained = {os.path.relpath(row["path"], folder): row["split"] for row in csv.DictReader(file)}
    if moved:
        folder = shutil.move(folder, tmp_path / "elsewhere")
    inner = "train/" if layout else ""
    for number in (0, 1, 2):
        draw_image(folder / f"{inner}red" / f"0{number}.png", (0, 0, 0), number)
    os.remove(folder / f"{inner}blue" / "8.png")
    outcome = cli("evaluate", "r", *(("--data", folder) if moved else ()))
    assert outcome.code == 0 and "images that were added since: 3;" in outcome.err and "were training images" not in outcome.err
    rows = list_split(runs.find("r"), "valid", str(folder) if moved else "", lambda event: None)
    evaluated = {os.path.relpath(row.path, folder) for row in rows}
    assert evaluated == {path for path, split in trained.items() if split == "valid"} - {f"{inner}blue/8.png"}


def test_images_left_out_of_the_training_were_not_added(cli, folder):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet", "--train-pct", 0.5).code == 0
    draw_image(folder / "red" / "00.png", (0, 0, 0), 0)
    outcome = cli("evaluate", "r")
    assert outcome.code == 0 and "differ from those" in outcome.err and "were added" not in outcome.err


def test_a_copy_beside_the_images_of_the_training_has_their_splits(cli, folder, run, tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "copied")
    draw_image(tmp_path / "copied" / "red" / "00.png", (0, 0, 0), 0)
    expected = {os.path.relpath(row.path, pictures) for row in list_split(run, "valid", "", lambda event: None)}
    assert {os.path.relpath(row.path, tmp_path / "copied") for row in list_split(run, "valid", str(tmp_path / "copied"), lambda event: None)} == expected


def test_a_note_says_that_the_splits_of_a_changed_tar_are_not_known(cli, tmp_path):
    def write(count):
        with tarfile.open(tmp_path / "photos.tar", "w") as file:
            for number in range(count):
                for suffix, data in (("png", image_bytes(10 * number)), ("cls", b"%d" % (number % 2))):
                    info = tarfile.TarInfo(f"{number:03d}.{suffix}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))

    write(20)
    assert cli("train", "photos.tar", *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet").code == 0
    write(22)
    outcome = cli("evaluate", "r")
    assert outcome.code == 0 and "so training images may be evaluated" in outcome.err


def test_a_folder_without_the_training_images(cli, folder, run, tmp_path, pictures):
    for row in list_split(run, "valid", "", lambda event: None):
        target = tmp_path / "copied" / os.path.relpath(row.path, pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(row.path, target)
    outcome = cli("evaluate", "r", "--data", tmp_path / "copied")
    assert outcome.code == 1 and "with the splits of the training" in outcome.err and "tlfast evaluate RUN --split all --data PATH" in outcome.err


def test_the_list_of_a_run_needs_none_of_its_settings(cli, folder, tmp_path):
    (folder / "mine.csv").write_text("file,kind\n" + "".join(f"{label}/{i}.png,{label}\n" for label in ("red", "blue") for i in range(10)))
    columns = ("--path-col", "file", "--label-col", "kind", "--fold", 1)
    assert cli("train", folder / "mine.csv", *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet", *columns).code == 0
    outcome = cli("evaluate", "r", "--data", runs.find("r").folder / "images.csv")
    assert outcome.code == 0 and "differ" not in outcome.err, outcome.err


def test_the_table_of_a_run_has_its_images(cli, run):
    outcome = cli("evaluate", "r", "--data", run.folder / "images.csv")
    assert outcome.code == 0 and "differ" not in outcome.err


def test_training_images_in_a_split_of_the_user_are_counted(cli, folder, run, tmp_path, pictures):
    with open(run.folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    taken = [row for row in rows if row["split"] == "train"][:2]
    for row in taken:
        row["split"] = "valid"
    with open(tmp_path / "mine.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    outcome = cli("evaluate", "r", "--data", tmp_path / "mine.csv")
    count = sum(row["split"] == "valid" for row in rows)
    assert outcome.code == 0 and f"2 of the {count} valid images were training images of r, so the metrics are too high" in outcome.err
