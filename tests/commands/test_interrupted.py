"""Interrupted trainings: their progress, and the commands that resume them."""

from __future__ import annotations

import signal

import pytest

import tlfast
from tests.helpers.command_line import TINY
from tlfast.commands import train
from tlfast.commands.interrupted import resume_command
from tlfast.core import Settings
from tlfast.tasks import registry
from tlfast.training.callbacks import progress


@pytest.fixture
def stop(cli, monkeypatch):
    """Begin a full training, which Ctrl-C stops in the second epoch of all layers."""
    watch = progress.ProgressCallback.after_batch

    def interrupt(self):
        watch(self)
        if self.training and self.phase == "all layers" and self.epoch == 1:
            signal.raise_signal(signal.SIGINT)

    def begin(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(progress.ProgressCallback, "after_batch", interrupt)
            options = ["--full", "--epochs", 3, "--freeze-epochs", 1, "--name", "mine", "--no-onnx", "--checkpoint-minutes", 0]
            assert cli("train", *arguments, *TINY, *options).code == 130

    return begin


@pytest.fixture
def stopped(stop, pictures):
    stop(pictures)


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


def test_a_run_that_was_interrupted_after_it_was_written_has_nothing_to_resume(cli, pictures, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "track_results", interrupt)
    outcome = cli("train", pictures, *TINY, "--epochs", 1, "--name", "mine", "--no-onnx")
    assert outcome.code == 130 and "the run is complete" in outcome.err and "tlfast report exports/pictures/mine" in outcome.err
    assert cli("runs", "--interrupted", "--json").json == [] and tlfast.Run("mine").folder == tmp_path / "exports/pictures/mine"


def test_resume_names_what_it_resumes(cli, pictures, stopped):
    with pytest.raises(tlfast.UsageError, match="the interrupted training began with"):
        tlfast.train(pictures, resume=True, depth=0)
    outcome = cli("train", pictures, "--resume", "--device", "cpu")  # it began with auto
    assert outcome.code == 0, outcome.err
    note = " ".join(outcome.err.split())
    assert "resuming mine (full, test_resnet, 32 px), head finished, 1 of 3 epochs of all layers finished, after 0." in note
    assert cli("runs", "--interrupted", "--json").json == []


def test_the_same_command_resumes_a_training_whose_options_override_its_file(cli, pictures, stop, tmp_path):
    (tmp_path / "mine.toml").write_text("minutes = 10\n")
    (tmp_path / "other.toml").write_text("full = false\n")
    stop(pictures, "--config", "mine.toml")  # with --full
    refused = cli("train", pictures, "--config", "other.toml", "--resume")
    assert refused.code == 2 and "--depth 0: the interrupted training began with all" in refused.err
    resumed = cli("train", pictures, "--config", "mine.toml", "--full", "--resume")
    assert resumed.code == 0, resumed.err


def test_a_damaged_journal_is_left_out(cli, pictures, stopped, tmp_path):
    (tmp_path / "exports" / "pictures" / "mine.unfinished" / "journal.json").write_text("{")
    assert cli("runs", "--interrupted", "--json").json == []


def test_a_training_with_refused_settings_does_not_hide_the_others(cli, tmp_path):
    folder = tmp_path / "exports" / "t" / "newer.unfinished"
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text('{"settings": {"task": "t", "novel": 1}}')
    listed = cli("runs", "--json")
    assert listed.code == 0 and listed.json == []
    assert "left out: exports/t/newer.unfinished cannot be resumed (unknown setting 'novel')" in " ".join(listed.err.split())
    assert tlfast.runs(interrupted=True).empty


TASK = "import tlfast\nTASK = tlfast.Task('birds', 'birds of three colours', ('red', 'green', 'blue'))\n"


def test_a_training_of_a_task_file_is_resumed_in_another_process(cli, pictures, stop, tmp_path, monkeypatch):
    (tmp_path / "birds.py").write_text(TASK)
    stop("birds.py", "--data", pictures)
    registry._loaded.clear()  # as in another process
    (found,) = cli("runs", "--interrupted", "--json").json
    assert found["command"] == f"tlfast train {tmp_path / 'birds.py'} --resume mine"
    (tmp_path / "birds.py").rename(tmp_path / "moved.py")
    outcome = cli("train", "--resume")
    assert outcome.code == 2 and f"{tmp_path / 'birds.py'}, the file of the task birds, is missing" in outcome.err
    (tmp_path / "moved.py").rename(tmp_path / "birds.py")
    other = cli("train", pictures, "--resume", "mine")  # the images alone: the same fingerprint, but sorted classes
    assert other.code == 1 and "the classes, or their order, differ from those of the interrupted training: red, green, blue" in other.err
    resumed = cli("train", "--resume")
    assert resumed.code == 0, resumed.err
    run = tlfast.Run("birds")
    assert run.classes == ["red", "green", "blue"] and run.manifest["task_file"] == str(tmp_path / "birds.py")


def test_a_task_without_images_of_its_own_path_is_named(tmp_path):
    settings = Settings(task="gone", data="")
    assert resume_command(settings, "mine") == "tlfast train gone --resume mine"
    assert resume_command(settings, "mine", "gone.py") == "tlfast train gone.py --resume mine"
