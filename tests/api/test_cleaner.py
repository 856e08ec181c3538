from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import tlfast
from tests.helpers.files import tree
from tests.helpers.runs import copy_run
from tlfast.testing import TINY


@pytest.fixture
def run(trained_run, tmp_path, monkeypatch) -> tlfast.Run:
    copy_run(trained_run.partial, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tlfast.Run("pictures")


def test_candidates_are_the_top_losses(run):
    cleaner = run.cleaner(5)
    assert cleaner.candidates["path"].tolist() == run.top_losses(5)["path"].tolist()
    assert (cleaner.candidates["reason"] == "top loss").all()


def test_decisions_give_a_new_dataset(run, pictures):
    before = tree(pictures)
    cleaner = run.cleaner(5)
    first, second, third = cleaner.candidates["path"][:3]
    cleaner.drop(first)
    cleaner.relabel([second], "red" if "/red/" not in second else "blue")
    cleaner.drop(third)
    cleaner.keep(third)
    assert repr(cleaner) == f"Cleaner of r: 5 candidates, 1 dropped, {len(cleaner.decisions) - 1} relabelled"
    cleaned = cleaner.apply().table.set_index("path")
    original = run.dataset.table.set_index("path")
    assert set(original.index) - set(cleaned.index) == {first}
    changed = original.loc[cleaned.index]["label"] != cleaned["label"]
    assert changed[changed].index.tolist() == [second]
    assert (original.loc[cleaned.index]["split"] == cleaned["split"]).all()
    assert tree(pictures) == before


def test_classes_can_be_named_as_decisions(tmp_path, trained_run, pictures, monkeypatch):
    for label, name in (("red", "drop"), ("blue", "keep")):
        shutil.copytree(pictures / label, tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    cleaner = tlfast.train(tmp_path / "photos", epochs=1, onnx=False, quiet=True, **TINY).cleaner(4, quiet=True)
    kept, dropped = ([path for path, label in cleaner.candidates[["path", "label"]].to_numpy() if label == name] for name in ("keep", "drop"))
    cleaner.relabel(kept, "drop")
    cleaner.drop(dropped)
    table = cleaner.apply().table.set_index("path")
    assert (table.loc[kept]["label"] == "drop").all() and table.index.isin(dropped).sum() == 0
    assert set(cleaner.decisions) == {*kept, *dropped}


def test_a_corrected_table_keeps_the_splits_when_images_were_added(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tlfast.train(folder, epochs=1, onnx=False, quiet=True, **TINY)
    before = run.dataset.table.set_index("path")["split"]
    for number in range(3):
        shutil.copy(folder / "red" / f"{number}.png", folder / "red" / f"0{number}.png")
    after = run.cleaner(4).apply().table.set_index("path")["split"]
    assert after[before.index].equals(before) and set(after.drop(before.index)) == {"train"}


def test_the_same_label_is_no_decision(run):
    cleaner = run.cleaner(2)
    path, label = cleaner.candidates.loc[0, ["path", "label"]]
    cleaner.relabel(path, label)
    assert cleaner.decisions == {}


def test_paths_can_be_path_objects(run):
    cleaner = run.cleaner(2)
    first, second = map(Path, cleaner.candidates["path"])
    cleaner.drop(first)
    cleaner.drop([second])
    assert set(cleaner.decisions) == {str(first), str(second)}


def test_a_label_that_is_no_text(run):
    cleaner = run.cleaner(2)
    with pytest.raises(tlfast.UsageError, match="label=5 is not a text"):
        cleaner.relabel(cleaner.candidates["path"][0], 5)


@pytest.mark.parametrize("path", [3, None, [3]], ids=str)
def test_paths_of_wrong_types(run, path):
    with pytest.raises(tlfast.UsageError):
        tlfast.Run(run.folder).cleaner(2, quiet=True).drop(path)


def test_unknown_images_and_classes(run):
    cleaner = run.cleaner(2)
    with pytest.raises(tlfast.UsageError, match="nix.png is not an image of r"):
        cleaner.drop("nix.png")
    with pytest.raises(tlfast.UsageError, match="unknown class 'rde'") as error:
        cleaner.relabel(cleaner.candidates["path"][0], "rde")
    assert error.value.hint == "Did you mean 'red'?"


def test_relative_paths_are_those_of_the_current_folder(run):
    cleaner = run.cleaner(1)
    path = cleaner.candidates["path"][0]
    cleaner.drop(os.path.relpath(path))
    assert cleaner.decisions == {path: "drop"}


def test_suspected_labels_come_from_the_network_of_the_run(run, monkeypatch):
    given = {}
    monkeypatch.setattr(tlfast.Dataset, "check", lambda self, **settings: given.update(settings))
    run.cleaner(1, labels=True)
    assert given == {
        "labels": True,
        "quiet": False,
        "arch": "test_resnet",
        "head": "fastai",
        "weights": "none",
        "size": 32,
        "crop_pct": 1.0,
        "resize": "squish",
    }


def test_suspected_labels_come_first(run, monkeypatch):
    path = run.dataset.table["path"][0]
    suspected = tlfast.api.datasets.Findings([{"kind": "label issue", "path": path, "label": "blue", "reason": "looks like red"}])
    monkeypatch.setattr(tlfast.Dataset, "check", lambda self, **settings: suspected)
    first = run.cleaner(2, labels=True).candidates.iloc[0]
    assert (first["path"], first["suggestion"], first["reason"]) == (path, "red", "label issue")


def test_the_widget_records_decisions(run):
    pytest.importorskip("ipywidgets")
    cleaner = run.cleaner(3)
    status, form = cleaner.widget().children
    choice = form.children[1].children[1]
    assert [text for text, _ in choice.options] == ["keep", "drop", "blue", "green", "red"]
    choice.label = "drop"
    assert cleaner.decisions == {cleaner.candidates["path"][1]: "drop"}
    assert "1 dropped" in status.value
    choice.label = "keep"
    assert cleaner.decisions == {}
