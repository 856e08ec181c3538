"""tlfast export: smaller formats are judged before they are kept, and a bundle needs no tlfast."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

import tlfast
from tests.helpers.command_line import TINY
from tlfast.commands import export as export_module
from tlfast.core import runs
from tlfast.core.errors import DataError, RunError
from tlfast.core.run_files import ONNX_FILE
from tlfast.data import Row


@pytest.mark.parametrize(("flags", "name"), [(["--quantize", "int8"], "model.int8.onnx"), (["--half"], "model.fp16.onnx")])
def test_a_smaller_form_is_judged_sealed_and_can_be_used(run, cli, folder, flags, name):
    outcome = cli("export", "r", *flags, "--allow-drop", "--json")
    assert outcome.code == 0, outcome.err
    (export,) = outcome.json["exports"]
    assert export["file"] == name and export["images"] == 6 and export["images_per_second"] > 0
    path = run.folder / name
    assert export["megabytes"] == pytest.approx(path.stat().st_size / 1e6)
    # what was said of it is true of it
    rows = [row for row in export_module.read_images_of_run(run) if row.split == "valid"]
    small, whole = tlfast.load(path), tlfast.load("r")
    for classifier, said in ((small, export["accuracy"]), (whole, export["accuracy_before"])):
        assert sum(classifier.predict(row.path).label == row.label for row in rows) / 6 == pytest.approx(said)
    assert small.info == whole.info
    # it belongs to the run now
    again = runs.find("r", verified=True)
    assert again.manifest["exports"][name]["accuracy"] == export["accuracy"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=name):
        runs.verify(again)
    refused = cli("export", "r", *flags, "--no-verify")
    assert refused.code == 2 and f"{name} exists already" in refused.err
    # moved away, as the hint says, it is written again
    path.rename(path.with_name("old.onnx"))
    assert cli("evaluate", "r", "--json").code == 0
    repeated = cli("export", "r", *flags, "--allow-drop", "--json")
    assert repeated.code == 0 and path.is_file(), repeated.err
    runs.verify(runs.find("r"))


def test_a_form_that_loses_is_refused_and_leaves_nothing(run, cli, monkeypatch):
    monkeypatch.setattr(export_module, "_score", lambda network, rows, phase, on_event: export_module._Score(0.5 if "int8" in phase else 0.52, 1.0, 1.0))
    before = sorted(path.name for path in run.folder.iterdir())
    outcome = cli("export", "r", "--quantize", "int8")
    assert outcome.code == 1 and "model.int8.onnx would lose 2.0 points of accuracy (0.5200 to 0.5000)" in " ".join(outcome.err.split())
    assert "not begun" not in outcome.err
    both = cli("export", "r", "--quantize", "int8", "--half", "--to", "bundle")
    assert both.code == 1 and "(0.5200 to 0.5000); not begun: model.fp16.onnx, bundle" in " ".join(both.err.split())
    assert sorted(path.name for path in run.folder.iterdir()) == before
    runs.verify(runs.find("r"))
    assert cli("export", "r", "--quantize", "int8", "--allow-drop").code == 0


def test_wrong_words(run, cli):
    assert cli("export", "r").code == 2
    outcome = cli("export", "r", "--quantize", "int4")
    assert outcome.code == 2 and "--quantize 'int4' is not int8" in outcome.err
    (run.folder / ONNX_FILE).unlink()
    assert cli("export", "r", "--half").code == 1 and "has no model.onnx" in cli("export", "r", "--half", "--no-verify").err


def test_images_that_are_gone(cli, folder):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "r", "--quiet").code == 0
    shutil.rmtree(folder / "red")
    gone = cli("export", "r", "--quantize", "int8")
    assert gone.code == 1 and "images are missing, the first: " in gone.err


def test_unpacked_images_that_were_removed_from_the_cache(cache_folder):
    with pytest.raises(DataError, match="1 of the 1 valid images are missing") as caught:
        export_module.select_split([Row(str(cache_folder / "unpacked" / "x" / "1.jpg"), "a", "valid")], "valid")
    assert "Unpack the images again: tlfast data check" in caught.value.hint


def test_calibration_images_are_of_all_classes(tmp_path, monkeypatch):
    rows = [Row(str(tmp_path / f"{label}-{i}.png"), label, "train") for label in "abcde" for i in range(100)]
    for row in rows:
        Path(row.path).touch()
    monkeypatch.setattr(export_module, "read_pixels", lambda row: row.label)
    counts = Counter(export_module._calibration_images(rows, lambda event: None))
    assert sum(counts.values()) == export_module.CALIBRATED_ON and set(counts) == set("abcde") and max(counts.values()) - min(counts.values()) <= 2


def test_an_unreadable_first_image_does_not_stop_an_export(run, cli):
    first = next(row for row in export_module.read_images_of_run(run) if row.split == "valid")
    before = Path(first.path).read_bytes()
    Path(first.path).write_bytes(b"damaged")
    try:
        outcome = cli("export", "r", "--half", "--allow-drop", "--json")
    finally:
        Path(first.path).write_bytes(before)
    assert outcome.code == 0, outcome.err
