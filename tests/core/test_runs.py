from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.interruption import Killed
from tlfast.core import files, runs, seals
from tlfast.core.errors import RunError, UsageError
from tlfast.core.run_files import EXAMPLE_FILE, ONNX_FILE
from tlfast.export.weights import write_tensors


def make(out, task="t", run_id="r"):
    with runs.create_run(str(out), task, run_id) as (folder, published):
        (folder / "run.json").write_text(json.dumps({"settings": {"task": task}, "classes": ["a"]}))
    return published[0]


def test_found_by_task_id_folder_and_latest(tmp_path):
    first, second = make(tmp_path, run_id="one"), make(tmp_path, run_id="two")
    for reference in ("t", "two", str(second), str(tmp_path / "t"), "t/two"):
        assert runs.find(reference, str(tmp_path)).folder == second
    assert runs.find("one", str(tmp_path)).folder == first


def test_metrics_of_earlier_versions_have_the_present_names(tmp_path):
    point = {"threshold": 0.9, "coverage": 0.5, "accuracy": 0.99}
    (tmp_path / "metrics_test.json").write_text(json.dumps({"accuracy": 0.8, "calibration": {"error": 0.1, "promises": {"0.99": point}}}))
    assert runs.read_metrics(tmp_path, "test") == {"accuracy": 0.8, "calibration": {"error": 0.1, "thresholds": {"0.99": point}}}


def test_files_are_added_to_a_run_all_or_none(tmp_path):
    run, scratch = runs.read_run(make(tmp_path)), tmp_path / "scratch"
    scratch.mkdir()
    sources = [scratch / "model.xml", scratch / "model.bin"]
    for source in sources:
        source.write_text(source.name)
    (run.folder / "model.bin").write_text("of somebody else")
    with pytest.raises(UsageError, match="model.bin exists already"):
        runs.add_files(run, sources, {"images": 3})
    assert not (run.folder / "model.xml").exists() and (run.folder / "model.bin").read_text() == "of somebody else"
    (run.folder / "model.bin").unlink()
    sources[0].write_text("model.xml")
    added = runs.add_files(run, sources, {"images": 3})
    assert added.manifest["exports"] == {"model.xml": {"images": 3}, "model.bin": {"images": 3}}
    runs.verify(runs.read_run(run.folder))


def test_a_taken_name_is_never_overwritten(tmp_path):
    assert [make(tmp_path).name for _ in range(3)] == ["r", "r-2", "r-3"]
    with pytest.raises(UsageError, match="a run named 'r' exists already"):
        runs.check_writable(str(tmp_path), "t", "r")


def test_a_failed_run_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), runs.create_run(str(tmp_path), "t", "r") as (folder, _):
        (folder / "model").touch()
        raise ZeroDivisionError
    assert list((tmp_path / "t").iterdir()) == []


def test_a_file_system_without_permissions_keeps_the_run(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with runs.create_run(str(tmp_path), "t", "a") as (folder, published):
        write_tensors(folder / "model.safetensors", {"w": torch.zeros(1)}, {"format": "pt"})
    assert (published[0] / "model.safetensors").is_file()


def test_unknown_run(tmp_path):
    make(tmp_path, "fer", "one")
    with pytest.raises(RunError) as error:
        runs.find("fet", str(tmp_path))
    assert error.value.message == f"no run 'fet' in {tmp_path}" and error.value.hint == "Did you mean 'fer'?"
    with pytest.raises(RunError) as error:
        runs.find("weeds", str(tmp_path / "empty"))
    assert error.value.hint == "If it is a task or a folder of images, train first: tlfast train weeds"


def test_damaged_manifest(tmp_path):
    (make(tmp_path) / "run.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        runs.find("t", str(tmp_path))


def test_out_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError) as error:
        runs.check_writable(str(tmp_path / "file"), "t", "")
    assert "cannot write to" in error.value.message and "--out" in error.value.hint
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(RunError):
            runs.check_writable(str(tmp_path / "closed"), "t", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": None},
        {"classes": 3},
        {"classes": []},
        {"mean": "x"},
        {"std": [None]},
        {"temperature": None},
        {"data": []},
        {"data": {"source": 3}},
        {"files": []},
    ],
    ids=str,
)
def test_entries_of_wrong_types_are_damage(tmp_path, changes):
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"task": "x"}, "classes": ["a", "b"], **changes}))
    with pytest.raises(RunError, match="is damaged"):
        runs.read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"task": "x"}, "classes": ["a", "b"]}))
    assert runs.read_run(tmp_path).manifest["classes"] == ["a", "b"]  # as runs of early versions


def test_runs_of_a_path_are_those_of_its_images(run, cli, folder):
    task = run.folder.parent.name
    for words in ((), ("--interrupted",)):
        assert cli("runs", folder, *words).code == 0
    assert [each["run"] for each in cli("runs", folder, "--json").json] == [each["run"] for each in cli("runs", task, "--json").json] == ["r"]
    for name in ("/no/such/folder", "**", "[a]"):
        outcome = cli("runs", name)
        assert outcome.code == 1 and f"no run '{name}' in exports" in outcome.err
        assert cli("runs", name, "--interrupted").code == 0


def test_a_home_folder_of_nobody(cli):
    outcome = cli("evaluate", "~nobody-of-that-name")
    assert outcome.code == 1 and "no run '~nobody-of-that-name'" in outcome.err


def test_runs_are_listed_without_reading_their_metrics(run):
    (listed,) = runs.list_runs(str(run.folder.parent.parent), run.folder.parent.name)
    metrics = runs.read_metrics(run.folder)
    assert (listed["accuracy"], listed["macro_f1"]) == (metrics["accuracy"], metrics["macro"]["f1"])
    (run.folder / "metrics.json").unlink()
    assert runs.list_runs(str(run.folder.parent.parent), run.folder.parent.name) == [listed]


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"accuracy": 1}'])
def test_damaged_runs_are_named(run, cli, content):
    manifest = json.loads((run.folder / "run.json").read_text())
    del manifest["scores"]  # as in runs of earlier versions
    (run.folder / "run.json").write_text(json.dumps(manifest))
    (run.folder / "metrics.json").write_text(content)
    outcome = cli("runs")
    assert outcome.code == 0 and "left out:" in outcome.err and str(run.folder) in "".join(outcome.err.split())
    (run.folder / "run.json").write_text("[" * 100_000)
    outcome = cli("predict", "r", "a.png", "--no-verify")
    assert outcome.code == 1 and "damaged" in outcome.err and "unexpected" not in outcome.err


@pytest.mark.parametrize("content", ["", "nope", "../../etc"])
def test_a_file_latest_that_names_no_run(run, cli, content):
    (run.folder.parent / runs.LATEST).write_text(content)
    outcome = cli("predict", "pictures", "a.png")
    assert outcome.code == 1 and f"latest names '{content}', which is no run" in " ".join(outcome.err.split())


def test_concurrent_changes_of_a_run_are_all_kept_and_verified_meanwhile(run):
    code = f"""
from pathlib import Path
from tlfast.core import runs, seals
run = runs.read_run(Path({str(run.folder)!r}))
for number in range(10):
    runs.record_test_use(run, "evaluate", {{"number": number}})
    runs.verify(run)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 4
    found = runs.find(str(run.folder), verified=True).manifest["test_looks"]
    assert sorted(look["number"] for look in found) == sorted(list(range(10)) * 4)


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked on Windows")
def test_a_change_locks_a_file_which_other_machines_see_on_nfs(tmp_path):
    run = runs.read_run(make(tmp_path))
    with files.lock_folder(run.folder, shared=True, with_file=True):
        assert not (run.folder / ".lock").exists()
    with runs._changed(run):
        assert files.is_file_locked(run.folder / ".lock")
    assert not files.is_file_locked(run.folder / ".lock") and ".lock" not in seals.compute_checksums(run.folder)


@pytest.mark.parametrize("done", range(7))  # seal, manifest and seal without the file, the file, and the three with it
def test_a_run_can_be_verified_after_a_change_that_was_killed(tmp_path, monkeypatch, done):
    folder = make(tmp_path)
    (folder / "model").touch()
    runs.seal(folder, runs.read_run(folder).manifest)

    def evaluate(result):
        runs.record_test_use(runs.read_run(folder), "evaluate", {}, lambda scratch: (scratch / "metrics_test.json").write_text(result))

    evaluate("first")
    replace, left = os.replace, iter(range(done))

    def replace_some(source, target):
        if next(left, None) is None:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace_some)
        evaluate("second")
    runs.verify(runs.read_run(folder))
    assert (folder / "metrics_test.json").read_text() in ("first", "second")
    evaluate("third")
    runs.verify(runs.read_run(folder))
    digest = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
    assert (folder / "run.json.sha256").read_text() == f"{digest}  run.json\n"  # as sha256sum writes it
    (folder / "run.json").write_text((folder / "run.json").read_text() + " ")
    with pytest.raises(RunError, match=r"does not match run\.json\.sha256"):
        runs.verify(runs.read_run(folder))


def test_an_unfinished_training_is_no_run(tmp_path):
    (tmp_path / "t" / "mine.unfinished").mkdir(parents=True)
    with pytest.raises(RunError, match="mine is an unfinished training") as error:
        runs.find("mine", str(tmp_path))
    assert "tlfast runs --interrupted" in error.value.hint
    with pytest.raises(RunError, match="is an unfinished training"):
        runs.find(str(tmp_path / "t" / "mine.unfinished"), str(tmp_path))


def test_a_run_without_its_manifest_is_named(tmp_path):
    folder = make(tmp_path, "t", "one")
    (folder / "model.onnx").touch()
    (folder / "run.json").unlink()
    for reference in (folder, "one"):
        with pytest.raises(RunError) as error:
            runs.find(str(reference), str(tmp_path))
        assert (
            error.value.message == f"{folder} has no run.json, which every run has" and f"predict and serve also take {folder}/model.onnx" in error.value.hint
        )


def test_the_words_for_a_run_in_a_command_find_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here, other, same = make("exports"), make("other runs", "t", "only there"), make("elsewhere")
    for folder in (here, other, same):
        assert runs.find(*shlex.split(runs.refer_to(runs.read_run(folder)))).folder.samefile(folder)
    assert runs.refer_to(runs.read_run(here)) == "r"


def test_a_bundle_is_no_run(tmp_path):
    for name in (ONNX_FILE, EXAMPLE_FILE):
        (tmp_path / name).write_text("")
    with pytest.raises(RunError, match="is a bundle of tlfast export, without its run") as error:
        runs.find(str(tmp_path), str(tmp_path / "exports"))
    assert "predict and serve take it" in error.value.hint


def test_runs_without_a_file_latest_are_named(run, cli):
    (run.folder.parent / runs.LATEST).unlink()
    outcome = cli("evaluate", "pictures")
    assert outcome.code == 1 and "has no file 'latest'" in outcome.err and f"Give one of its runs: {run.folder}" in outcome.err


def test_a_folder_that_is_missing_is_named(cli):
    outcome = cli("runs", "--out", "nowhere", "--json")
    assert (outcome.code, outcome.json) == (0, []) and "there is no folder nowhere" in outcome.err


def test_a_file_in_the_current_folder_is_no_task_file(run, cli, tmp_path):
    (tmp_path / "-").write_text("x")
    assert cli("evaluate", "pictures").code == 0
