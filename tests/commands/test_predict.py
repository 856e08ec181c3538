from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import tlfast
from tlfast.commands import predict
from tlfast.core import Progress
from tlfast.core.errors import UsageError
from tlfast.data import discovery
from tlfast.data.discovery import gather_sources
from tlfast.inference import classifier as classifiers
from tlfast.inference import onnx_model, writers


@pytest.fixture
def run(run):
    """The folder of the task, with the run "r"."""
    return str(run.folder.parent)


def test_many_files_keep_their_order_and_equal_one_by_one(run, folder):
    classifier = tlfast.load(run)
    paths = list(gather_sources([str(folder)])) * 3
    rows = list(predict.predict_sources(classifier, predict.PredictRequest(paths)))
    assert [row.path for row in rows] == paths and len(paths) > onnx_model.BATCH
    for row in rows[:40:7]:
        assert row.prediction.probabilities == pytest.approx(classifier.predict(row.path).probabilities, abs=1e-5)


def test_nothing_heavy_is_imported(run, folder):
    code = f"""
import sys, tlfast
tlfast.load({run!r}).predict({str(folder / "red" / "1.png")!r})
from tlfast.cli.app import app
app(["predict", {run!r}, {str(folder / "red")!r}, "--quiet"], standalone_mode=False)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "fastai", "timm", "sklearn", "pandas", "matplotlib", "onnx", "scipy"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_to_predict(run, cli, tmp_path):
    (tmp_path / "void").mkdir()
    outcome = cli("predict", run, "void", "*.gif")
    assert outcome.code == 2 and "no images in void, *.gif" in outcome.err
    assert cli("predict", run).code == 2 and cli("predict", run, "a.png", "--watch", ".").code == 2


def test_command_names_a_bad_image_and_says_so_by_its_exit_code(run, cli, folder, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    outcome = cli("predict", "pictures", folder / "red" / "1.png", bad, "--json", "--top", 2)
    assert outcome.code == 1
    good, failed = outcome.json
    assert len(good["probabilities"]) == 2 and good["label"] in good["probabilities"]
    assert failed == {"path": str(bad), "error": "not an image that can be read"}
    outcome = cli("predict", "pictures", folder / "red" / "1.png")
    assert outcome.code == 0 and "1.png" in outcome.out


def test_csv_file(run, cli, folder, tmp_path):
    target = tmp_path / "answers.csv"
    assert cli("predict", "pictures", folder / "red", folder / "none.png", "--csv", target).code == 1
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert len(rows) == 13 and rows[-1]["error"].startswith("cannot be read")
    assert sum(float(rows[0][f"p({name})"]) for name in ("blue", "green", "red")) == pytest.approx(1, abs=1e-5)
    assert not list(tmp_path.glob("*.partial"))
    again = cli("predict", "pictures", folder / "red", "--csv", target)
    assert again.code == 2 and "the file exists already" in again.err
    resumed = cli("predict", "pictures", folder / "red", "--csv", target, "--resume")
    assert resumed.code == 2 and "the file is complete" in resumed.err
    assert "no file is given" in cli("predict", "pictures", folder / "red", "--resume").err
    turned = cli("predict", folder / "red" / "1.png", "pictures")
    assert turned.code == 1 and "is not a run" in turned.err and "The run comes first" in turned.err
    assert len(list(csv.DictReader(target.read_text().splitlines()))) == 13


def test_columns_of_images_that_are_not_used_are_named(run, cli, folder, tmp_path):
    image = {"bytes": (folder / "red" / "1.png").read_bytes()}
    mask = {"bytes": (folder / "blue" / "1.png").read_bytes()}
    parquet.write_table(pyarrow.Table.from_pylist([{"image": image, "mask": mask}]), tmp_path / "plants.parquet")
    outcome = cli("predict", run, tmp_path / "plants.parquet", "--json")
    assert "the images are those of column image; --column chooses another one: mask" in outcome.err
    chosen = cli("predict", run, tmp_path / "plants.parquet", "--column", "mask", "--json")
    assert "--column" not in chosen.err and chosen.json[0]["path"].endswith("plants.parquet#mask:0")
    assert chosen.json[0]["probabilities"] != outcome.json[0]["probabilities"]


def test_a_column_without_a_table_is_named(run, cli, folder, tmp_path):
    words = "--column file has no effect, because no source is a table"
    assert words in cli("predict", run, folder / "red" / "1.png", "--column", "file").err
    (tmp_path / "list.csv").write_text(f"file\n{folder / 'red' / '1.png'}\n")
    assert words not in cli("predict", run, folder / "red" / "2.png", "list.csv", "--column", "file").err


def test_an_interrupted_command_goes_on_where_it_was(run, cli, folder, tmp_path, monkeypatch):
    whole = cli("predict", run, folder, folder / "none.png", "--csv", tmp_path / "whole.csv", "--parquet", tmp_path / "whole.parquet")
    assert whole.code == 1
    original = classifiers.open_pixels

    def dies(source, **options):
        if source.endswith("red/9.png"):  # the 36th: those before it fill a batch
            raise KeyboardInterrupt
        return original(source, **options)

    monkeypatch.setattr(predict, "open_pixels", dies)
    asked = ["predict", run, folder, folder / "none.png", "--csv", tmp_path / "cut.csv", "--parquet", tmp_path / "cut.parquet"]
    assert cli(*asked).code == 130
    assert not (tmp_path / "cut.csv").exists()
    log = tmp_path / "cut.csv.partial"
    done = len(log.read_text().splitlines()) - 1  # the first line names the run
    with log.open("a") as file:
        file.write('{"path": "torn')  # as a kill may leave it
    refused = cli(*asked)
    assert refused.code == 2 and "--resume" in refused.err
    opened = []
    monkeypatch.setattr(predict, "open_pixels", lambda source, **options: opened.append(source) or original(source, **options))
    resumed = cli(*asked, "--resume", "--json")
    assert resumed.code == 1 and len(resumed.json) == 37, "the rows of the interrupted command are counted too"
    assert done == onnx_model.BATCH and len(opened) == 37 - done
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert parquet.read_table(tmp_path / "cut.parquet").equals(parquet.read_table(tmp_path / "whole.parquet"))
    assert not list(tmp_path.glob("*.partial"))


def test_of_several_files_the_unfinished_ones_are_continued(run, cli, folder, tmp_path):
    flags = ["--csv", tmp_path / "a.csv", "--jsonl", tmp_path / "a.jsonl"]
    assert cli("predict", run, "pictures", *flags, "--quiet").code == 0
    lines = (tmp_path / "a.csv").read_text()
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.csv.partial").write_text("")  # killed when the table was not written yet
    resumed = cli("predict", run, "pictures", *flags, "--resume")
    assert resumed.code == 0 and "a.jsonl is complete already" in resumed.err.replace("\n", "")
    assert (tmp_path / "a.csv").read_text() == lines and not (tmp_path / "a.csv.partial").exists()
    again = cli("predict", run, "pictures", *flags, "--resume")
    assert again.code == 2 and "the file is complete" in again.err


def test_all_files_say_the_same(run, cli, folder, tmp_path):
    bad = folder / "bad\n name,ü.png"
    bad.write_text("no image")
    targets = {kind: tmp_path / f"answers.{kind}" for kind in ("csv", "jsonl", "parquet")}
    outcome = cli("predict", run, folder, "--json", *(part for kind, path in targets.items() for part in (f"--{kind}", path)))
    assert outcome.code == 1
    shown = outcome.json
    lines = [json.loads(line) for line in targets["jsonl"].read_text().splitlines()]
    assert lines == shown and len(shown) == 37
    table = parquet.read_table(targets["parquet"]).to_pylist()
    rows = list(csv.DictReader(io.StringIO(targets["csv"].read_text(), newline="")))
    for values, row, cells in zip(shown, table, rows, strict=True):
        assert values["path"] == row["path"] == cells["path"]
        assert values.get("label", "") == row["label"] == cells["label"]
        if "error" in values:
            assert row["probability"] is None and cells["probability"] == "" and row["error"] == cells["error"] == values["error"]
        else:
            assert row["p(red)"] == pytest.approx(values["probabilities"]["red"]) == pytest.approx(float(cells["p(red)"]))


def test_files_of_the_same_name_or_nowhere_are_refused(run, cli, folder, tmp_path):
    assert cli("predict", run, folder, "--csv", "a", "--jsonl", "a").code == 2
    outcome = cli("predict", run, folder, "--csv", tmp_path / "no" / "a.csv")
    assert outcome.code == 1 and "No such file or directory" in outcome.err


def test_below_the_least_probability_it_is_unsure(run, cli, folder, tmp_path):
    outcome = cli("predict", run, folder / "red", "--min-prob", 1, "--json", "--csv", tmp_path / "a.csv")
    assert {row["label"] for row in outcome.json} == {"unsure"} and all(row["probability"] < 1 for row in outcome.json)
    assert {row["label"] for row in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())} == {"unsure"}
    assert "unsure (" in cli("predict", run, folder / "red" / "1.png", "--min-prob", 1).out


def test_many_images_are_counted_on_the_screen(run, cli, folder):
    outcome = cli("predict", run, *[folder] * 2, folder / "none.png")
    assert outcome.code == 1 and "1 images could not be read" in outcome.out and "none.png" in outcome.out and "0.png" not in outcome.out
    counts = [line.split() for line in outcome.out.splitlines() if line.split()[:1] and line.split()[0] in ("blue", "green", "red")]
    assert sum(int(count) for _, count, _ in counts) == 72


def test_zip_csv_and_stdin(run, cli, folder, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.write(folder / "red" / "1.png", "deep/1.png")
    (tmp_path / "list.csv").write_text("photo;note\npictures/red/1.png;a\npictures/blue/2.png;b\n")
    assert [row["path"] for row in cli("predict", run, "some.zip", "--json").json] == ["some.zip!/deep/1.png"]
    listed = cli("predict", run, "list.csv", "--column", "photo", "--json").json
    assert [row["path"] for row in listed] == ["pictures/red/1.png", "pictures/blue/2.png"]
    wrong = cli("predict", run, "list.csv")
    assert wrong.code == 2 and "has no column 'path'; it has: photo, note" in wrong.err
    monkeypatch.setattr("sys.stdin", io.StringIO("pictures/red/1.png\n\npictures/red/2.png\n"))
    assert len(list(predict.predict_sources(tlfast.load(run), predict.PredictRequest(["-"])))) == 2


def test_an_image_whose_writer_paused_is_looked_at_again(run, folder, tmp_path, monkeypatch):
    (tmp_path / "inbox").mkdir()
    data, looks = (folder / "red" / "1.png").read_bytes(), []

    def sleeps(seconds):
        looks.append(seconds)
        if len(looks) in (1, 5):
            (tmp_path / "inbox" / "slow.png").write_bytes(data if len(looks) == 5 else data[:200])
        if len(looks) > 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(discovery.time, "sleep", sleeps)
    request, events = predict.PredictRequest([], watch=str(tmp_path / "inbox")), []
    rows = list(predict.predict_sources(tlfast.load(run), request, events.append))
    assert [row.prediction is not None for row in rows] == [False, True] and events == [Progress("watching", 0, 0)]


def test_a_watched_folder(run, folder, tmp_path, monkeypatch):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    looks = []

    def sleeps(seconds):
        looks.append(seconds)
        if len(looks) in (1, 4):
            shutil.copy(folder / "red" / f"{len(looks)}.png", inbox)
        if len(looks) > 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(discovery.time, "sleep", sleeps)
    request = predict.PredictRequest([], watch=str(inbox), files={"csv": str(tmp_path / "seen.csv")})
    rows = list(predict.predict_sources(tlfast.load(run), request))
    assert [Path(row.path).name for row in rows] == ["1.png", "4.png"]
    assert len(list(csv.DictReader((tmp_path / "seen.csv").read_text().splitlines()))) == 2
    with pytest.raises(UsageError, match="--watch nowhere: not a folder"):
        list(predict.predict_sources(tlfast.load(run), predict.PredictRequest([], watch="nowhere")))


def at_looks(monkeypatch, **actions):
    """Call `actions["at_N"]` before the folder is listed for the time number N + 1, and end the watching after ten."""
    looks = []

    def sleeps(seconds):
        looks.append(seconds)
        actions.get(f"at_{len(looks)}", lambda: None)()
        if len(looks) > 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(discovery.time, "sleep", sleeps)


def test_a_file_that_is_replaced_by_one_of_the_same_size_is_looked_at_again(run, folder, tmp_path, monkeypatch):
    (tmp_path / "inbox").mkdir()
    camera = tmp_path / "inbox" / "camera.bmp"

    def save(label):
        Image.open(folder / label / "1.png").save(camera)

    at_looks(monkeypatch, at_1=lambda: save("red"), at_4=lambda: save("green"), at_7=camera.unlink, at_8=lambda: save("blue"))
    rows = list(predict.predict_sources(tlfast.load(run), predict.PredictRequest([], watch=str(tmp_path / "inbox"))))
    assert [row.path for row in rows] == [str(camera)] * 3
    assert len({tuple(row.prediction.probabilities.values()) for row in rows}) == 3


def test_a_watch_that_was_killed_continues_with_new_changed_and_incomplete_images(run, folder, tmp_path, monkeypatch):
    inbox, target = tmp_path / "inbox", tmp_path / "seen.csv"
    inbox.mkdir()
    for name in ("kept", "changed", "half"):
        shutil.copy(folder / "red" / "1.png", inbox / f"{name}.png")
    (inbox / "half.png").write_bytes((folder / "red" / "1.png").read_bytes()[:100])
    at_looks(monkeypatch)
    request = predict.PredictRequest([], watch=str(inbox), files={"csv": str(target)})
    classifier = tlfast.load(run)
    first = list(predict.predict_sources(classifier, request))
    assert [bool(row.prediction) for row in sorted(first, key=lambda row: row.path)] == [True, False, True]
    target.unlink()
    origin = writers.Origin(classifier.run, classifier.classes)  # as of an earlier version, without the file
    with pytest.raises(ZeroDivisionError), writers.open_writer("csv", target, origin, 0, resume=False) as (_, write):
        for row in first:
            write(row)
        raise ZeroDivisionError  # as a kill does, it leaves the log

    shutil.copy(folder / "red" / "1.png", inbox / "half.png")
    at_looks(
        monkeypatch,
        at_2=lambda: shutil.copy(folder / "blue" / "2.png", inbox / "new.png"),
        at_5=lambda: shutil.copy(folder / "blue" / "1.png", inbox / "changed.png"),
    )
    rows = list(predict.predict_sources(tlfast.load(run), replace(request, resume=True)))
    assert [Path(row.path).name for row in rows] == ["half.png", "new.png", "changed.png"]
    written = [Path(row["path"]).name for row in csv.DictReader(target.read_text().splitlines())]
    assert sorted(written) == ["changed.png", "changed.png", "half.png", "half.png", "kept.png", "new.png"]


def test_files_that_are_no_images_are_named_in_one_line_and_images_of_other_names_are_read(run, cli, folder):
    (folder / "red" / "1.png").rename(folder / "red" / "picture")
    (folder / "red" / "list.csv").write_text("a,b\n")
    (folder / "red" / "words").write_text("no picture")
    outcome = cli("predict", run, folder / "red")
    assert outcome.code == 0
    assert f"{folder}/red/picture" in outcome.out
    assert outcome.err.count("2 files are not images and are left out: 1 .csv, 1 no suffix") == 1


def test_one_file_under_two_names(run, cli, folder, tmp_path):
    for arguments in (["--csv", "o.csv", "--jsonl", tmp_path / "o.csv"], ["--csv", "o.csv", "--jsonl", "o.csv.partial"]):
        outcome = cli("predict", run, "pictures", *arguments)
        assert outcome.code == 2 and "name the same file" in outcome.err
    assert list(tmp_path.glob("o.csv*")) == []


def test_a_name_that_is_too_long_is_the_error_of_its_image(run, cli, folder):
    outcome = cli("predict", run, folder / "red" / "1.png", f"{300 * 'x'}.png", "--json")
    assert outcome.code == 1 and ["error" in row for row in outcome.json] == [False, True]


def test_a_dash_is_stdin_and_no_file(run, cli, folder, tmp_path, monkeypatch):
    outcome = cli("predict", run, folder / "red" / "1.png", "--csv", "-")
    assert outcome.code == 2 and "--csv - names no file" in outcome.err and not (tmp_path / "-").exists()
    monkeypatch.setattr(predict.sys, "stdin", None)  # closed
    request = predict.PredictRequest(["-"])
    with pytest.raises(UsageError, match="no images in -"):
        list(predict.predict_sources(tlfast.load(run), request))
