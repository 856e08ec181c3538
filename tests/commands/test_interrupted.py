"""Interrupted trainings: their progress, and the commands that resume them."""

from __future__ import annotations

import signal

import pytest

import tlfast
from tests.helpers.command_line import TINY
from tlfast.training.callbacks import progress


@pytest.fixture
def stopped(cli, pictures, monkeypatch):
    """A full training that Ctrl-C has stopped in the second epoch of all layers."""
    watch = progress.ProgressCallback.after_batch

    def stop(self):
        watch(self)
        if self.training and self.phase == "all layers" and self.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_batch", stop)
        outcome = cli("train", pictures, *TINY, "--full", "--epochs", 3, "--freeze-epochs", 1, "--name", "mine", "--no-onnx", "--checkpoint-minutes", 0)
    assert outcome.code == 130


def test_runs_lists_them_with_the_command_that_resumes(cli, pictures, stopped):
    (found,) = cli("runs", "--interrupted", "--json").json
    assert (found["run"], found["strategy"], found["arch"], found["size"]) == ("mine", "full", "test_resnet", 32)
    assert found["progress"] == "head finished, 1 of 3 epochs of all layers finished" and found["seconds"] > 0
    assert found["command"] == f"tlfast train {pictures} --resume mine"
    assert "1 of 3 epochs" in cli("runs", "--interrupted").out
    listed = cli("runs", "--json")
    assert listed.json == [] and "to resume: tlfast train" in listed.err.replace("\n", " ")
    assert cli("runs", "--quiet").err == ""
    assert tlfast.runs(interrupted=True)["run"].tolist() == ["mine"]
    assert cli("runs", "digits", "--interrupted", "--json").json == []


def test_resume_names_what_it_resumes(cli, pictures, stopped):
    with pytest.raises(tlfast.UsageError, match="the interrupted training began with"):
        tlfast.train(pictures, resume=True, depth=0)
    outcome = cli("train", pictures, "--resume")
    assert outcome.code == 0, outcome.err
    note = " ".join(outcome.err.split())
    assert "resuming mine (full, test_resnet, 32 px), head finished, 1 of 3 epochs of all layers finished, after 0." in note
    assert cli("runs", "--interrupted", "--json").json == []


def test_a_damaged_journal_is_left_out(cli, pictures, stopped, tmp_path):
    (tmp_path / "exports" / "pictures" / "mine.unfinished" / "journal.json").write_text("{")
    assert cli("runs", "--interrupted", "--json").json == []
