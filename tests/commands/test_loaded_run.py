"""A finished run, loaded on any machine."""

from __future__ import annotations

import csv
import os
import shutil

import pytest

from tests.helpers.command_line import TINY
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


def splits_of(rows):
    return {os.path.relpath(row["path"], os.path.dirname(os.path.dirname(row["path"]))): row["split"] for row in rows}


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize("flags", [(), ("--fold", 2)], ids=["drawn", "fold"])
def test_images_keep_their_splits_when_others_are_added(cli, folder, tmp_path, moved, flags):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--no-onnx", "--quiet", *flags).code == 0
    with open(tmp_path / "exports/pictures/r/images.csv", newline="") as file:
        trained = splits_of(csv.DictReader(file))
    if moved:
        folder = shutil.move(folder, tmp_path / "elsewhere")
    for number in (0, 1, 2):
        draw_image(folder / "red" / f"0{number}.png", (0, 0, 0), number)
    os.remove(folder / "blue" / "11.png")
    outcome = cli("evaluate", "r", *(("--data", folder) if moved else ()))
    assert outcome.code == 0 and "images that were added since: 3;" in outcome.err and "were training images" not in outcome.err
    rows = list_split(runs.find("r"), "valid", str(folder) if moved else "", lambda event: None)
    evaluated = {os.path.relpath(row.path, folder) for row in rows}
    assert evaluated == {path for path, split in trained.items() if split == "valid"} - {"blue/11.png"}


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
