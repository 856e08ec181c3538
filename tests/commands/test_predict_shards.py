"""`tlfast predict --out-dir`: parts, their repetition, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile

import pandas as pd
import pytest
from pyarrow import concat_tables, parquet

import tlfast
from tests.helpers.command_line import python
from tests.helpers.paths import ROOT
from tlfast.commands import predict_shards
from tlfast.core.files import lock_file
from tlfast.inference import manifest, shards
from tlfast.inference.shards import name_part, read_description


@pytest.fixture
def run(run):
    """The folder of the task, with the run "r"."""
    return str(run.folder.parent)


def read_parts(folder):
    """Return the rows of all parts in order."""
    return concat_tables([parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))])


def names(folder):
    return sorted(path.name for path in folder.glob("part-*"))


@pytest.mark.parametrize("chunk", [5, 10_000])
def test_parts_hold_the_predictions_of_one_command(run, cli, folder, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(manifest, "CHUNK", chunk)  # files of the list that do not end where a part does
    (folder / "red" / "bad.png").write_text("no image")
    assert cli("predict", run, "pictures", "--parquet", "one.parquet").code == 1
    outcome = cli("predict", run, "pictures", "--out-dir", "answers", "--shards", 4, "--json")
    expected, found = parquet.read_table(tmp_path / "one.parquet"), read_parts(tmp_path / "answers")
    assert outcome.code == 1 and names(tmp_path / "answers") == [name_part(shard, 4) for shard in range(4)]
    assert found.drop_columns(["probability", *found.column_names[4:]]).equals(expected.drop_columns(["probability", *expected.column_names[4:]]))
    assert found["probability"].to_pylist() == pytest.approx(expected["probability"].to_pylist(), abs=1e-6)
    assert outcome.json["images"] == 37 and outcome.json["failed"] == 1 and sum(outcome.json["labels"].values()) == 36
    assert [path for path in (tmp_path / "answers").iterdir() if path.name.endswith((".tmp", ".partial"))] == []


def test_a_repeated_command_writes_what_is_missing(run, cli, folder, tmp_path):
    answers = tmp_path / "answers"
    first = cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "1/3", "--json").json
    assert names(answers) == [name_part(1, 3)] and (first["images"], first["shards"], first["of"], first["reused"]) == (12, 1, 3, 0)
    written = (answers / name_part(1, 3)).stat().st_mtime_ns
    (answers / name_part(2, 3)).write_bytes(b"damaged")
    second = cli("predict", run, "pictures", "--out-dir", "answers", "--shards", 3, "--json")
    assert second.json["reused"] == 1 and second.json["images"] == 36 and "1 of 3 parts are there already" in second.err
    assert (answers / name_part(1, 3)).stat().st_mtime_ns == written
    assert sorted(read_parts(answers)["path"].to_pylist()) == sorted(str(path.relative_to(tmp_path)) for path in folder.rglob("*.png"))
    assert cli("predict", run, "pictures", "--out-dir", "answers").out.count("3 of 3, 3 of them by earlier commands") == 1
    assert second.json["labels"] == cli("predict", run, "pictures", "--out-dir", "answers", "--json").json["labels"]


def test_images_are_those_of_the_list(run, cli, folder, tmp_path):
    cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "0/2")
    (folder / "blue" / "new.png").write_bytes((folder / "blue" / "1.png").read_bytes())
    changed, gone = sorted(folder.glob("red/*.png"))[:2]
    changed.write_bytes((folder / "blue" / "1.png").read_bytes() + b" ")
    gone.unlink()
    assert cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "1/2").code == 1
    rows = {row["path"]: row["error"] for row in read_parts(tmp_path / "answers").to_pylist()}
    assert len(rows) == 36 and {os.path.basename(path): error for path, error in rows.items() if error} == {
        changed.name: shards.CHANGED,
        gone.name: shards.CHANGED,
    }


def test_a_part_whose_images_were_removed_has_errors(run, cli, folder, tmp_path):
    cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "0/2")
    for path in folder.rglob("*.png"):
        path.unlink()
    assert cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "1/2").code == 1
    assert read_parts(tmp_path / "answers")["error"].to_pylist().count(shards.CHANGED) == 18


def test_a_machine_without_the_images_writes_no_part(run, cli, folder, tmp_path):
    cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "0/2")
    folder.rename(tmp_path / "elsewhere")
    outcome = cli("predict", run, "pictures", "--out-dir", "answers", "--shard", "1/2")
    assert outcome.code == 1 and "the folders of all 18 images of part 1 are missing on " in outcome.err and "Mount them there" in outcome.err
    (tmp_path / "elsewhere").rename(folder)
    assert cli("predict", run, "pictures", "--out-dir", "answers", "--shards", 2).code == 0
    assert read_parts(tmp_path / "answers").num_rows == 36


def test_a_kill_leaves_no_part_and_nothing_is_lost(run, cli, folder, tmp_path):
    code = f"""
import os, sys
from tlfast.inference import shards
read = shards._open_unchanged
def open_or_die(given, work):
    if "red" in given.path:
        os.kill(os.getpid(), 9)
    return read(given, work)
shards._open_unchanged = open_or_die
from tlfast.cli.app import app
app(["predict", {run!r}, {str(folder)!r}, "--out-dir", "answers", "--shards", "6"])
"""
    assert python(code).returncode == -9
    killed = names(tmp_path / "answers")
    assert 0 < len(killed) < 6
    outcome = cli("predict", run, folder, "--out-dir", "answers", "--json")
    assert outcome.code == 0 and outcome.json["reused"] == len(killed) and read_parts(tmp_path / "answers").num_rows == 36


def test_a_killed_list_is_made_again(run, cli, folder, tmp_path):
    answers = tmp_path / "answers"
    for left in ("_manifest.partial", "_manifest"):
        (answers / left).mkdir(parents=True)
        (answers / left / "000000.parquet").write_bytes(b"")
    (answers / "._predictions.json.123-456.tmp").touch()
    assert cli("predict", run, "pictures", "--out-dir", "answers").code == 0
    assert read_description(answers).images == read_parts(answers).num_rows == 36


@pytest.fixture
def small_chunks(monkeypatch):
    """Lists of images in files of ten images, and so parts of ten images."""
    for module in (manifest, predict_shards):
        monkeypatch.setattr(module, "CHUNK", 10)


@pytest.fixture
def listing(monkeypatch):
    """What happens: "listed" for each image of a list, "predicted" for each image that is opened. `stop` makes the listing fail after so many images."""
    happened, gather, read = [], predict_shards.gather_sources, shards._open_unchanged

    def record(*arguments, **options):
        for path in gather(*arguments, **options):
            if happened.count("listed") == stop.get("after"):
                raise KeyboardInterrupt
            happened.append("listed")
            yield path

    def open_image(given, work):
        happened.append("predicted")
        return read(given, work)

    stop = {}
    monkeypatch.setattr(predict_shards, "gather_sources", record)
    monkeypatch.setattr(shards, "_open_unchanged", open_image)
    return happened, stop


def test_images_are_predicted_while_others_are_listed(run, cli, folder, tmp_path, small_chunks, listing):
    happened, _ = listing
    outcome = cli("predict", run, "pictures", "--out-dir", "answers", "--json")
    assert happened[:20] == ["listed"] * 10 + ["predicted"] * 10
    assert names(tmp_path / "answers") == [name_part(shard, 4) for shard in range(4)]
    assert [parquet.read_metadata(path).num_rows for path in sorted((tmp_path / "answers").glob("part-*"))] == [10, 10, 10, 6]
    assert (outcome.json["images"], outcome.json["shards"], outcome.json["of"], outcome.json["reused"]) == (36, 4, 4, 0)
    cli("predict", run, "pictures", "--out-dir", "listed-first", "--shards", 4)
    assert read_parts(tmp_path / "answers").drop(["probability"])["path"].equals(read_parts(tmp_path / "listed-first")["path"])
    assert read_parts(tmp_path / "answers")["label"].equals(read_parts(tmp_path / "listed-first")["label"])
    again = cli("predict", run, "pictures", "--out-dir", "answers", "--json")
    assert again.json["reused"] == 4 and again.json["labels"] == outcome.json["labels"]


def test_a_list_that_was_interrupted_keeps_what_was_predicted(run, cli, folder, tmp_path, small_chunks, listing):
    happened, stop = listing
    stop["after"] = 25
    assert cli("predict", run, "pictures", "--out-dir", "answers").code == 130
    assert not names(tmp_path / "answers") and len(list((tmp_path / "answers").glob(".part-*.draft"))) == 2
    for other in (["--min-prob", 0.5], ["--shards", 2], ["--shard", "0/2"]):
        refused = cli("predict", run, "pictures", "--out-dir", "answers", *other)
        assert refused.code == 2 and "answers was begun with" in refused.err
    stop.clear()
    happened.clear()
    outcome = cli("predict", run, "pictures", "--out-dir", "answers", "--json")
    assert outcome.json["reused"] == 2 and "2 of 4 parts were there already" in outcome.err
    assert happened.count("listed") == 36 and happened.count("predicted") == 16
    assert names(tmp_path / "answers") == [name_part(shard, 4) for shard in range(4)]
    assert sorted(read_parts(tmp_path / "answers")["path"].to_pylist()) == sorted(str(path.relative_to(tmp_path)) for path in folder.rglob("*.png"))
    assert not list((tmp_path / "answers").glob(".part-*"))


def test_a_list_that_is_shorter_after_an_interruption(run, cli, folder, tmp_path, small_chunks, listing):
    _, stop = listing
    stop["after"] = 31
    assert cli("predict", run, "pictures", "--out-dir", "answers").code == 130
    stop.clear()
    for path in sorted(folder.rglob("*.png"))[:30]:
        path.unlink()
    outcome = cli("predict", run, "pictures", "--out-dir", "answers", "--json")
    assert outcome.json["images"] == read_parts(tmp_path / "answers").num_rows == 6
    assert names(tmp_path / "answers") == [name_part(0, 1)] and not list((tmp_path / "answers").glob(".part-*"))


def test_no_images_leave_no_work(run, cli, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("predict", run, "empty", "--out-dir", "answers").code == 2
    assert cli("predict", run, "pictures", "--out-dir", "answers").code == 0


def test_a_second_process_waits_for_the_list(run, cli, folder, tmp_path):
    (tmp_path / "answers").mkdir()
    command = [sys.executable, "-m", "tlfast", "predict", run, "pictures", "--out-dir", "answers"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        with lock_file(tmp_path / "answers" / ".lock", RuntimeError()):
            assert process.stderr and any("another process is listing the images; waiting for it" in line for line in process.stderr)
            assert process.poll() is None and names(tmp_path / "answers") == []
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert len(names(tmp_path / "answers")) == 1


def test_tars_and_parquet_files_in_parts(run, cli, folder, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(folder, "x")
    cli("predict", run, "a.tar", "--out-dir", "answers", "--shards", 2)
    rows = read_parts(tmp_path / "answers").to_pylist()
    assert len(rows) == 36 and rows[0]["path"].startswith("a.tar!/x/") and not any(row["error"] for row in rows)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--shards", 3], "--shards is given without --out-dir"),
    (["--engine", "ray"], "--engine is given without --out-dir"),
    (["--out-dir", "answers", "--shard", "3/3"], "--shard 3/3 is not K/N with K from 0 to N-1"),
    (["--out-dir", "answers", "--shard", "1/3", "--shards", 2], "--shard 1/3 and --shards 2 differ"),
    (["--out-dir", "answers", "--csv", "a.csv"], "--csv and --out-dir exclude each other"),
    (["--out-dir", "answers", "--resume"], "Repeat the command without it"),
    (["--out-dir", "answers", "--engine", "dask"], "--engine 'dask' is not one of: local, ray"),
    (["--out-dir", "answers", "--address", "10.0.0.1:6379"], "without --engine ray"),
    (["--out-dir", "pictures"], "--out-dir pictures holds other files, such as blue"),
])  # fmt: skip
def test_wrong_usage(run, cli, folder, arguments, words):
    outcome = cli("predict", run, "pictures", *arguments)
    assert outcome.code == 2 and words in outcome.err


@pytest.mark.parametrize(("arguments", "words"), [
    (["pictures/red"], "was begun with the images pictures"),
    (["pictures", "--shards", 3], "was begun with --shards 2"),
    (["pictures", "--min-prob", 0.5], "was begun with --min-prob 0.0"),
])  # fmt: skip
def test_a_folder_belongs_to_one_request(run, cli, folder, tmp_path, arguments, words):
    cli("predict", run, "pictures", "--out-dir", "answers", "--shards", 2)
    before = names(tmp_path / "answers")
    outcome = cli("predict", run, *arguments, "--out-dir", "answers")
    assert outcome.code == 2 and words in outcome.err and names(tmp_path / "answers") == before


def test_a_folder_belongs_to_one_model(run, cli, folder, tmp_path):
    cli("predict", run, "pictures", "--out-dir", "answers")
    path = tmp_path / "answers" / "_predictions.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model": "0" * 64}))
    outcome = cli("predict", run, "pictures", "--out-dir", "answers")
    assert outcome.code == 2 and "was begun with another model, that of the run r" in outcome.err
    path.write_text("{")
    assert "predictions.json is damaged" in cli("predict", run, "pictures", "--out-dir", "answers").err


def test_a_missing_source_is_refused_before_anything_is_listed(run, cli, folder, tmp_path):
    outcome = cli("predict", run, "pictures/red", "pictures/rod", "--out-dir", "answers")
    assert outcome.code == 2 and "there is no file or folder pictures/rod" in outcome.err and names(tmp_path / "answers") == []
    assert cli("predict", run, "pictures/red", "--out-dir", "answers").code == 0  # nothing was begun


def test_empty_sources(run, cli, tmp_path):
    (tmp_path / "void").mkdir()
    assert "no images in void" in cli("predict", run, "void", "--out-dir", "answers").err
    assert not (tmp_path / "answers" / "_predictions.json").exists()


def test_more_parts_than_images(run, cli, folder, tmp_path):
    outcome = cli("predict", run, "pictures/red", "--out-dir", "answers", "--shards", 20)
    assert outcome.code == 0 and len(names(tmp_path / "answers")) == 20 and read_parts(tmp_path / "answers").num_rows == 12


def test_a_tar_that_changes_between_two_parts_of_one_process(run, cli, folder, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(folder, "x")
    assert cli("predict", run, "a.tar", "--out-dir", "answers", "--shard", "0/2").code == 0
    os.utime(tmp_path / "a.tar", (0, 0))
    assert cli("predict", run, "a.tar", "--out-dir", "answers", "--shard", "1/2").code == 1
    errors = parquet.read_table(tmp_path / "answers" / name_part(1, 2))["error"].to_pylist()
    assert errors == [shards.CHANGED] * 18


def test_from_python(run, cli, folder, tmp_path):
    found = tlfast.Run(run).predict_to("answers", folder, shards=2)
    rows = pd.read_parquet(tmp_path / "answers")
    assert found["images"].sum() == len(rows) == 36 and dict(found.values) == rows["label"].value_counts().to_dict()
    assert tlfast.Run(run).predict_to("answers", [folder]).equals(found)
    with pytest.raises(tlfast.UsageError, match="was begun with shards=2"):
        tlfast.Run(run).predict_to("answers", folder, shards=3)
    with pytest.raises(tlfast.UsageError, match='shard="2/2" is not K/N'):
        tlfast.Run(run).predict_to("answers", folder, shard="2/2")


@pytest.mark.parametrize(("values", "words"), [
    ({"shards": -1}, "shards=-1 is not a whole number"), ({"shards": "2"}, "shards='2' is not"), ({"shard": 1}, "shard=1 is not a text"),
    ({"min_prob": float("nan")}, "min_prob=nan is not a number"), ({"min_prob": "x"}, "min_prob='x' is not"), ({"cpus": "2"}, "cpus='2'"),
    ({"engine": None}, "engine='None' is not one of"), ({"images": {"a": 1}}, "images of type dict"), ({"images": None}, "images of type NoneType"),
    ({"images": "-"}, "a list on stdin"), ({"out_dir": " "}, "out_dir is empty"),
])  # fmt: skip
def test_wrong_values_from_python(run, cli, folder, tmp_path, values, words):
    given = {"out_dir": "answers", "images": folder, **values}
    with pytest.raises(tlfast.UsageError) as error:
        tlfast.Run(run).predict_to(given.pop("out_dir"), given.pop("images"), **given)
    assert words in error.value.message and not (tmp_path / "answers" / "_predictions.json").exists()


def test_folders_of_the_user_stay(run, cli, folder, tmp_path):
    (tmp_path / "mine" / "_manifest").mkdir(parents=True)
    (tmp_path / "mine" / "_manifest" / "notes.txt").write_text("precious")
    outcome = cli("predict", run, "pictures", "--out-dir", "mine")
    assert outcome.code == 2 and "holds other files, such as _manifest" in outcome.err
    assert (tmp_path / "mine" / "_manifest" / "notes.txt").read_text() == "precious"
    (tmp_path / "file").write_text("")
    assert "written with --out-dir" in cli("predict", run, "pictures", "--out-dir", "file").err
    assert "--out-dir is empty" in cli("predict", run, "pictures", "--out-dir", "").err


def test_a_list_that_is_gone(run, cli, folder, tmp_path):
    cli("predict", run, "pictures", "--out-dir", "answers")
    shutil.rmtree(tmp_path / "answers" / "_manifest")
    outcome = cli("predict", run, "pictures", "--out-dir", "answers")
    assert outcome.code == 1 and "the list of images, cannot be read" in outcome.err
