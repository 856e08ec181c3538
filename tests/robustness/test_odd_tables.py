"""Odd tables and folders of images."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command_line import TINY
from tests.helpers.odd import picture, saved
from tests.helpers.tables import listed
from tlfast.core.errors import TlfastError
from tlfast.data.discovery import list_members
from tlfast.testing import COLOURS, draw_image


def test_windows_paths_in_a_table(tmp_path, folder):
    names = [(f"pictures\\{label}\\{n}.png", label) for label in COLOURS for n in range(12)]
    table = listed(tmp_path, "\ufeffpath;label\r\n" + "".join(f"{name};{label}\r\n" for name, label in names))
    assert len(table.rows) == 36 and all(os.path.isfile(row.path) for row in table.rows)


def test_an_image_that_is_named_again(tmp_path, folder):
    lines = [f"pictures/{label}/{n}.png,{label}" for label in COLOURS for n in range(12)]
    table = listed(tmp_path, "path,label\n" + "\n".join([*lines, lines[0], lines[0]]))
    assert len(table.rows) == 36 and "2 rows repeat an image and are skipped" in table.notes
    with pytest.raises(TlfastError, match="line 38: .*0.png is also in an earlier row, with another label"):
        listed(tmp_path, "path,label\n" + "\n".join([*lines, "pictures/blue/0.png,red"]))


def test_blanks_at_the_ends_of_labels_are_removed_with_a_note(tmp_path, folder):
    lines = [f"pictures/{label}/{n}.png,{label}{' ' * (n < 2)}" for label in COLOURS for n in range(12)]
    table = listed(tmp_path, "path,label\n" + "\n".join(lines))
    assert len(table.classes) == 3 and table.notes == ("blanks at the ends of 6 labels are removed",)


def test_labels_that_are_numbers_and_a_class_that_only_judges(cli, tmp_path, folder):
    rows = [(f"pictures/{label}/{n}.png", str(k), "train" if n < 9 else "valid") for k, label in enumerate(COLOURS) for n in range(12)]
    (tmp_path / "n.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    done = cli("train", tmp_path / "n.csv", *TINY, "--epochs", 1, "--no-onnx", "--json")
    assert done.code == 0 and [score["name"] for score in done.json["evaluation"]["per_class"]] == ["0", "1", "2"]
    (tmp_path / "v.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows if row[1] != "2" or row[2] == "valid"))
    refused = cli("train", tmp_path / "v.csv", *TINY, "--epochs", 1)
    assert refused.code == 1 and "'2'" in refused.err and "Traceback" not in refused.err


def test_two_images_in_all(cli, tmp_path):
    draw_image(tmp_path / "two" / "a" / "1.png", COLOURS["red"], 1)
    draw_image(tmp_path / "two" / "b" / "1.png", COLOURS["blue"], 1)
    refused = cli("train", tmp_path / "two", *TINY, "--epochs", 1)
    assert refused.code == 1 and "error:" in refused.err and "Traceback" not in refused.err


@pytest.mark.parametrize("strategy", ["--partial", "--full"])
def test_a_last_batch_of_one(cli, folder, strategy):
    done = cli("train", folder, *TINY, "--bs", 7, "--epochs", 1, strategy, "--no-onnx", "--json")  # 29 train, one is left
    assert done.code == 0, done.err


@pytest.mark.slow
def test_many_classes(cli, tmp_path):
    rng = np.random.default_rng(0)
    for c in range(300):
        for n in range(2):
            path = tmp_path / "many" / f"{c:04d}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    done = cli("train", tmp_path / "many", *TINY, "--valid-pct", 0.5, "--epochs", 1, "--bs", 64, "--no-onnx", "--name", "r", "--quiet")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "exports" / "many" / "r" / "metrics.json").read_text())  # --json would write it once more
    assert len(metrics["per_class"]) == 300


def test_two_members_of_a_zip_that_are_called_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for _ in range(2):
            archive.writestr("a/1.png", saved(picture(), "PNG"))
    assert list_members(tmp_path / "twice.zip") == ["a/1.png"]
