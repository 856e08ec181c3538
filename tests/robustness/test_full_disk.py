"""A disk without room, or a folder that may not be written: one clear error, nothing half under a final name, and all is well once there is room."""

from __future__ import annotations

import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY
from tlfast.commands import train
from tlfast.core import cache, files, runs
from tlfast.data import images


@contextmanager
def room_for(size: int):
    """Let no file grow beyond so many bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_nothing_half(root: Path) -> None:
    for folder in runs.list_run_folders(str(root / "exports")):
        runs.verify(runs.read_run(folder))
    for entry in cache.list_entries():
        assert entry.kind == "unfinished" or cache.find(entry.kind, entry.folder.name)
    assert not list(root.rglob("*.tmp")) and not list(root.glob("exports/*/.*.partial"))


# What grows beyond each: the journal and the table, the store, the features, a checkpoint, the model, the ONNX file.
@pytest.mark.parametrize("size", [200, 10_000, 60_000, 150_000, 400_000, 1_500_000])
def test_a_full_disk_while_training(cli, folder, tmp_path, size):
    words = ["--store", "off"] if size in (10_000, 400_000) else ["--full", "--checkpoint-minutes", 0]
    command = ["train", folder, *TINY, "--epochs", 1, *words, "--json"]
    with room_for(size):
        outcome = cli(*command)
    if outcome.code:
        assert outcome.code == 1 and outcome.json["error"] and "Traceback" not in outcome.err
        assert any(word in outcome.json["error"] for word in ("File too large", "cannot", "write")), outcome.json
        assert not runs.list_run_folders("exports") or "the other files of the run are in" in outcome.json["error"]
    assert_nothing_half(tmp_path)
    again = cli(*command)
    assert again.code == 0, again.err
    assert_nothing_half(tmp_path)


@pytest.mark.parametrize("words", [["export", "r", "--quantize", "int8", "--allow-drop"], ["export", "r", "--to", "b.zip"], ["report", "r"]])
def test_a_full_disk_while_a_run_is_used(run, cli, tmp_path, words):
    with room_for(3000):
        outcome = cli(*words)
    assert outcome.code == 1 and "Traceback" not in outcome.err and "error:" in outcome.err
    assert_nothing_half(tmp_path)
    again = cli(*words)
    assert again.code == 0, again.err


def test_a_full_disk_while_predicting(run, cli, folder):
    with room_for(2000):
        outcome = cli("predict", "r", folder, "--csv", "answers.csv")
    assert outcome.code == 1 and "--csv answers.csv: File too large" in outcome.err and not Path("answers.csv").exists()
    assert cli("predict", "r", folder, "--csv", "answers.csv", "--resume").code == 0
    assert len(Path("answers.csv").read_text().splitlines()) == 37


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("words", [["train", "pictures", *TINY, "--epochs", 1], ["data", "check", "pictures", "--drop", "leaks"]])
def test_a_folder_that_may_not_be_written(cli, folder, words):
    Path("exports").mkdir(mode=0o555)
    outcome = cli(*words)
    assert outcome.code == 1 and "cannot write to" in outcome.err and "--out" in outcome.err
    Path("exports").chmod(0o755)
    assert cli(*words).code == 0


def leave(monkeypatch, free):
    """Let the file system report so many free bytes."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))


@pytest.mark.parametrize("command", [["train", "pictures", *TINY], ["compare", "pictures", *TINY, "--arms", "partial,full"], ["data", "check", "pictures"]])
def test_a_full_disk_is_noticed_before_the_images_are_read(cli, folder, monkeypatch, command):
    leave(monkeypatch, 500_000)
    monkeypatch.setattr(images, "open_image", lambda path: pytest.fail("an image was read"))
    outcome = cli(*command)
    assert outcome.code == 1 and "0 MB are free in exports, and about 1 MB are needed" in outcome.err
    assert not Path("exports").exists()


def test_a_disk_too_small_for_the_run_is_noticed_before_the_training(cli, folder, monkeypatch):
    leave(monkeypatch, 2_000_000)
    monkeypatch.setattr(train, "fit", lambda *arguments: pytest.fail("trained"))
    outcome = cli("train", folder, *TINY, "--full", "--epochs", 1)
    assert outcome.code == 1 and "2 MB are free in exports, and about" in outcome.err and "--out" in outcome.err


def test_the_room_of_a_run_is_enough_for_what_it_writes(cli, folder, tmp_path, monkeypatch):
    estimates, peaks = [], []
    estimate, save = train.estimate_room, files.write_atomic
    monkeypatch.setattr(train, "estimate_room", lambda *arguments: estimates.append(estimate(*arguments)) or estimates[-1])

    def save_and_measure(path, fill):
        save(path, fill)
        peaks.append(files.count_bytes(tmp_path / "exports"))

    monkeypatch.setattr(files, "write_atomic", save_and_measure)
    assert cli("train", folder, *TINY, "--full", "--epochs", 2, "--checkpoint-minutes", 0).code == 0
    written = max([*peaks, files.count_bytes(tmp_path / "exports")])
    assert written < estimates[0] + 1e6 < 4 * written
