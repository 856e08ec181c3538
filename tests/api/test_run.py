from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tlfast
from tests.helpers.runs import copy_run


@pytest.fixture
def run(trained_run, tmp_path, monkeypatch) -> tlfast.Run:
    copy_run(trained_run.partial, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tlfast.Run("pictures")


@pytest.fixture
def paths(pictures) -> list[str]:
    return sorted(map(str, pictures.rglob("*.png")))


def test_opens_by_task_id_and_folder(run):
    assert run.id == "r"
    assert tlfast.Run("r").folder == tlfast.Run(run.folder).folder
    assert repr(run).startswith("Run r: partial test_resnet, accuracy ")


def test_metrics_are_those_of_the_files(run):
    accuracy = run.metrics["accuracy"]
    right = (run.predictions["label"] == run.predictions["prediction"]).mean()
    assert accuracy.value == pytest.approx(right)
    assert accuracy.low <= accuracy.value <= accuracy.high
    assert np.trace(run.confusion_matrix().to_numpy()) == round(right * len(run.predictions))
    assert run.metrics.per_class.index.tolist() == run.classes
    with pytest.raises(KeyError, match="precison; there are: accuracy"):
        run.metrics["precison"]


def test_history_has_a_row_for_each_epoch(run):
    assert run.history["epoch"].tolist() == [1, 2]


def test_top_losses_are_sorted(run):
    top = run.top_losses(4)
    assert top["loss"].is_monotonic_decreasing
    assert len(top) == 4
    assert "data:image/jpeg" in top._repr_html_()


def test_predict_one_image(run, paths):
    by_path = run.predict(paths[0])
    assert by_path.label in run.classes
    assert run.predict(Image.open(paths[0])).probabilities == by_path.probabilities
    assert run.predict(np.asarray(Image.open(paths[0]))).probabilities == by_path.probabilities


def test_predict_many_images_gives_a_frame(run, paths, pictures):
    listed = run.predict(paths)
    assert listed["path"].tolist() == paths
    probabilities = listed[[f"p({name})" for name in run.classes]].to_numpy()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert listed.columns.tolist() == ["path", "label", "probability", "error", "p(blue)", "p(green)", "p(red)"]
    assert run.predict(pictures)["path"].tolist() == paths
    assert run.predict(str(pictures / "red" / "*.png"))["label"].notna().sum() == 12
    again = run.predict(listed.sample(frac=1, random_state=0))
    assert again["label"].sort_index().tolist() == listed["label"].tolist()


def test_probabilities_are_those_of_the_evaluation(run):
    stored = run.predictions
    again = run.predict(stored)
    names = [f"p({name})" for name in run.classes]
    assert np.allclose(again[names].to_numpy(), stored[names].to_numpy(), atol=2e-3)


def test_a_frame_without_paths(run):
    with pytest.raises(tlfast.UsageError, match="the DataFrame has no column 'path'; it has: file"):
        run.predict(pd.DataFrame({"file": ["a.png"]}))


def test_runs_of_early_versions_have_fewer_figures(run):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    early = {name: metrics[name] for name in ("accuracy", "macro", "confusion")}
    (run.folder / "metrics.json").write_text(json.dumps(early))
    assert run.metrics["accuracy"].low is None
    assert "accuracy" in run._repr_html_()


def test_objects_that_are_no_images_are_named_by_their_type(run, paths):
    rows = run.predict([paths[0], None, 5, [paths[0]], torch.zeros(3, 8, 8)])
    assert rows["error"].tolist()[1:] == [f"neither an image nor the path of one: {name}" for name in ("NoneType", "int", "list", "Tensor")]
    assert run.predict(np.array(paths[0])).label in run.classes
    with pytest.raises(tlfast.UsageError, match="the DataFrame has 2 columns 'path'"):
        run.predict(pd.DataFrame([[paths[0], paths[0]]], columns=["path", "path"]))


@pytest.mark.parametrize(
    ("name", "read"), [("history.csv", lambda run: run.history), ("metrics.json", repr), ("predictions.parquet", lambda run: run.top_losses(1))]
)
def test_files_of_a_run_that_are_damaged_or_missing(run, name, read):
    (run.folder / name).write_bytes(b"")
    with pytest.raises(tlfast.RunError, match=f"{name} cannot be read"):
        read(run)
    (run.folder / name).unlink()
    with pytest.raises(tlfast.RunError, match=f"has no {name}"):
        read(run)


def test_a_changed_run_names_the_keyword_that_opens_it(run):
    (run.folder / "metrics.json").write_bytes(b"{}")
    with pytest.raises(tlfast.RunError) as error:
        tlfast.Run(run.folder)
    assert "verify=False" in error.value.hint


def test_a_wrong_type_is_shown_in_one_line(run):
    with pytest.raises(tlfast.UsageError, match="^data=ImageFrame is not a text"):
        run.evaluate("all", data=run.predictions)


def test_an_unreadable_image_has_a_reason(run, paths):
    frame = run.predict([paths[0], "missing.png"])
    assert frame["error"].tolist()[0] == ""
    assert "No such file" in frame["error"].tolist()[1]
    with pytest.raises(tlfast.ImageError, match=r"missing\.png: cannot be read \(No such file"):
        run.predict("missing.png")


def test_evaluate_and_report(run):
    assert run.evaluate()["accuracy"] == run.metrics["accuracy"]
    page = run.report()
    assert page.path.name == "report.html"
    assert "&lt;html" in page._repr_html_()


def test_a_split_without_images(run):
    with pytest.raises(tlfast.DataError, match="has no test split"):
        run.evaluate(split="test")
    with pytest.raises(tlfast.RunError, match=r"has no metrics_test\.json"):
        run.confusion_matrix("test")
    with pytest.raises(tlfast.UsageError, match="^split='tset' is not one of"):
        run.top_losses(split="tset")


def test_export_of_a_bundle(run, tmp_path):
    result = run.export(tmp_path / "bundle.zip", quantize="int8", allow_drop=True)
    assert (tmp_path / "bundle.zip").is_file()
    assert [export.file for export in result.exports] == ["model.int8.onnx"]
    assert "model.int8.onnx" in run.manifest["exports"]
    with pytest.raises(tlfast.RunError, match=r"bundle\.zip is a zip"):
        tlfast.load(tmp_path / "bundle.zip")
    shutil.unpack_archive(tmp_path / "bundle.zip", tmp_path / "unpacked")
    folder = next(path.parent for path in (tmp_path / "unpacked").rglob("model.onnx"))
    assert tlfast.load(folder).classes == tuple(run.classes)
    with pytest.raises(tlfast.UsageError, match="nothing to export"):
        run.export()
    with pytest.raises(tlfast.UsageError, match="quantize='int4' is not int8"):
        run.export(quantize="int4")


def test_the_html_escapes_names(run):
    run.manifest["classes"][0] = "<b>blue"
    assert "<b>blue" not in run._repr_html_()
    assert "&lt;b&gt;blue" in run._repr_html_()


def test_runs_is_a_frame(run):
    assert tlfast.runs()["run"].tolist() == ["r"]
    assert tlfast.runs(out="nowhere").empty


def test_sources_without_images_and_files_that_are_left_out(run, pictures, tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    for source in ("photos", "photos/*.png"):
        with pytest.raises(tlfast.UsageError, match="no images in photos"):
            run.predict(source)
    (tmp_path / "photos" / "notes.txt").touch()
    try:
        shutil.copyfile(pictures / "red" / "0.png", tmp_path / os.fsdecode(b"photos/caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    frame = run.predict("photos")
    assert frame["path"].tolist() == ["photos/caf\ufffd.png"] and "1 .txt" in caplog.text


def test_predict_takes_the_column_of_a_file(run, pictures, tmp_path):
    (tmp_path / "list.csv").write_text(f"file,note\n{pictures / 'red' / '0.png'},x\n")
    with pytest.raises(tlfast.UsageError, match="list.csv has no column 'path'") as caught:
        run.predict("list.csv", quiet=True)
    assert caught.value.hint == "Name the column of paths with column"
    assert len(run.predict("list.csv", column="file", quiet=True)) == len(run.predict(pd.read_csv("list.csv"), column="file", quiet=True)) == 1


def test_a_tilde_is_the_home_folder(run, pictures, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    shutil.copytree("exports", home / "runs")
    assert tlfast.runs(out="~/runs")["run"].tolist() == ["r"]
    frame = pd.DataFrame({"path": [str(path) for path in pictures.rglob("*.png")]}).assign(label=lambda table: table["path"].str.split("/").str[-2])
    assert tlfast.dataset(frame, out="~/runs").settings["data"].startswith(str(home / "runs" / "table"))
    for target in ("~/bundle.zip", "~/bundle"):
        run.export(target, quiet=True)
    assert (home / "bundle.zip").is_file() and list(tlfast.load("~/bundle").classes) == list(tlfast.load("~/bundle/model.onnx").classes) == run.classes
    with pytest.raises(tlfast.RunError, match=r"~/bundle has no model\.tta-flip\.onnx") as caught:
        tlfast.load("~/bundle", tta="flip")
    assert "and then the bundle again" in caught.value.hint
    tlfast.doctor("~/runs", quiet=True)
    assert not (tmp_path / "~").exists()


def test_dataset_of_a_run_is_what_it_was_trained_on(run):
    table = run.dataset.table
    assert sorted(table[table["split"] == "valid"]["path"]) == sorted(run.predictions["path"])


def test_dataset_of_a_run_is_found_from_another_folder(digits_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tlfast.Run(digits_root / "exports" / "digits" / "first")
    assert run.settings.data == "" and run.dataset.settings["data"] == str(digits_root / "data" / "digits")
    assert set(run.predictions["path"]) <= set(run.dataset.table["path"]) and not (tmp_path / "data").exists()
    run.manifest["data"]["source"] = "/elsewhere/data/digits"  # as in a run that was copied from another machine
    assert run.dataset.settings["data"] == ""


@pytest.mark.parametrize("image", [io.BytesIO(b"x"), {"a": 1}, torch.zeros(3, 8, 8)], ids=["file", "dict", "tensor"])
def test_what_is_neither_an_image_nor_a_list(run, image):
    with pytest.raises(tlfast.UsageError, match="is neither an image nor a list of images"):
        tlfast.Run(run.folder).predict(image)


@pytest.mark.parametrize(("options", "problem"), [({"port": 99999}, "is not a port"), ({"host": 3}, "host=3"), ({"token": 3}, "token=3")], ids=str)
def test_options_of_a_server_are_checked(run, options, problem):
    with pytest.raises(tlfast.UsageError, match=problem):
        tlfast.Run(run.folder).serve(**options)


def test_errors_name_keywords(run, pictures):
    opened = tlfast.Run(run.folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        calls = [
            lambda: opened.serve(port),
            lambda: tlfast.dataset(pictures, limit=1).classes,
            lambda: tlfast.dataset(pictures, limit=1).without("leaks", quiet=True),
            lambda: tlfast.dataset(pictures).without("dups"),
        ]
        for call in calls:
            with pytest.raises(tlfast.TlfastError) as caught:
                call()
            assert "--" not in caught.value.message + caught.value.hint


def test_a_name_of_two_runs_is_an_error(run):
    shutil.copytree(run.folder, run.folder.parent.parent / "others" / "r")
    with pytest.raises(tlfast.RunError, match="2 runs are named 'r'"):
        tlfast.Run("r")
    assert tlfast.Run(run.folder).id == "r"


def test_paths_of_wrong_types(run):
    opened = tlfast.Run(run.folder)
    for call, name in ((lambda: opened.export(3), "to=3"), (lambda: opened.learner(data=3), "data=3"), (lambda: opened.evaluate(data=3), "data=3")):
        with pytest.raises(tlfast.UsageError, match=f"{name} is not a text"):
            call()
    with pytest.raises(tlfast.UsageError, match="3 is not the name or path of a run"):
        tlfast.load(3)


def test_wrong_types_are_usage_errors(run):
    with pytest.raises(tlfast.UsageError, match="reference=3 is not a text"):
        tlfast.Run(3)  # type: ignore[arg-type]
    with pytest.raises(tlfast.UsageError, match="task=3 is not a text"):
        tlfast.runs(3)  # type: ignore[arg-type]
    for k in ("9", 0, 2.5):
        with pytest.raises(tlfast.UsageError, match=f"k={k!r} is not a whole number above 0"):
            run.top_losses(k)  # type: ignore[arg-type]
    assert len(run.top_losses(np.int64(2))) == 2


def test_a_bundle_is_no_other_archive(run, tmp_path):
    with pytest.raises(tlfast.UsageError, match=r"a bundle is a folder or a \.zip file, not \.gz") as error:
        run.export(tmp_path / "bundle.tar.gz")
    assert error.value.hint == 'Use to="bundle.zip"' and not (tmp_path / "bundle.tar.gz").exists()


def test_predictions_of_a_series_have_its_index(run, paths):
    series = pd.Series(paths[:3], index=[7, 3, 5])
    assert run.predict(series, quiet=True).index.tolist() == [7, 3, 5]
    with pytest.raises(tlfast.UsageError, match="None is neither an image nor a list"):
        run.predict(None)  # type: ignore[arg-type]


def test_a_run_stays_the_same_in_another_working_directory(run, paths, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(run.history) and len(run.top_losses(2)) == 2 and run.predict(paths[0]).label in run.classes


def test_paths_in_an_array_are_a_list(run, paths):
    assert run.predict(np.array(paths[:3])).equals(run.predict(paths[:3]))


def test_calls_of_several_threads_take_turns(run):
    scores = []
    threads = [threading.Thread(target=lambda: scores.append(run.evaluate(quiet=True)["accuracy"].value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [run.metrics["accuracy"].value] * 4


def test_without_a_console(run, paths, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(run.predict(paths[:2])) == 2
