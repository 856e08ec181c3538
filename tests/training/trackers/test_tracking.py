"""Trainings, comparisons and evaluations with trackers: what is logged, and that nothing depends on them."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import tlfast
from tests.helpers.command_line import TINY
from tests.helpers.interruption import stopping_at, train_way
from tests.helpers.trackers import Recording, read_calls, read_table, use_fakes
from tlfast.core import Interrupted, Journal, Note, journal
from tlfast.core.config_files import settings_to_repeat
from tlfast.training.trackers import RunInfo, tracking
from tlfast.training.types import LOGGED_EVERY


@pytest.fixture
def calls(monkeypatch, tmp_path):
    return use_fakes(monkeypatch, tmp_path)


def read_history(folder: str) -> list[dict[str, float]]:
    with Path(folder, "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if name != "phase"} for row in csv.DictReader(file)]


def without(rows, *names):
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


def logged(calls):
    return [(call[1], call[2]) for call in calls if call[0] == "log"]


def train_untracked(way, pictures, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        return train_way(way, pictures, root)


@pytest.fixture(scope="module")
def untracked(pictures, tmp_path_factory):
    """A full training without trackers."""
    return train_untracked("full", pictures, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def untracked_head(pictures, tmp_path_factory):
    """A partial training without trackers."""
    return train_untracked("partial", pictures, tmp_path_factory.mktemp("partial"))


def assert_same_model(result, wanted):
    assert result.evaluation == wanted.evaluation
    weights, own = (load_file(Path(each.folder) / "model.safetensors") for each in (wanted, result))
    assert all(torch.equal(own[name], weights[name]) for name in weights)


def test_what_a_training_logs(calls, pictures, untracked, tmp_path):
    result = train_way("full", pictures, tmp_path, log="recording")
    assert_same_model(result, untracked)
    made = read_calls(calls)
    assert [made[0][:2], made[-1]] == [["start", result.run], ["end", "finished"]]
    config = made[0][2]
    assert (config["task"], config["out"], config["resumed"], config["group"]) == ("pictures", str(tmp_path), False, "") and len(config["key"]) == 32
    manifest = json.loads(Path(result.folder, "run.json").read_text())
    assert config["values"]["settings"] == {**manifest["settings"], "epochs": 3} and config["values"]["data"] == manifest["data"]
    assert config["values"]["versions"] == manifest["versions"] and config["values"]["weights"] == manifest["weights"]
    history = read_history(result.folder)
    rows = read_table(made)
    assert without(rows, "rate", "lowest_rate", "images_per_second") == history
    assert all(row["rate"] >= row["lowest_rate"] > 0 and row["images_per_second"] > 0 for row in rows)
    steps = [step for _, step in logged(made)]
    assert steps == sorted(steps) and len({step for values, step in logged(made) if "epoch/accuracy" in values}) == len(history)
    final = {name.removeprefix("final/"): value for values, _ in logged(made) for name, value in values.items() if name.startswith("final/")}
    assert final["accuracy"] == result.evaluation.accuracy and final["macro_f1"] == result.evaluation.macro.f1
    assert (final["accuracy_low"], final["accuracy_high"]) == tuple(result.evaluation.intervals["accuracy"])
    files = {
        "confusion_matrix.png",
        "top_losses.png",
        "calibration.png",
        "run.json",
        "history.csv",
        "metrics.json",
        "model.safetensors",
    }
    assert {call[1] for call in made if call[0] == "file" and call[2]} == files | {"report.html", "MODEL_CARD.md"}
    assert any("system/memory_gib" in values for values, _ in logged(made))


def test_steps_within_an_epoch(calls, pictures, tmp_path):
    train_way("partial", pictures, tmp_path, log="recording", bs=2, epochs=4)
    per_step = [(values, step) for values, step in logged(read_calls(calls)) if "step/loss" in values]
    assert [step for _, step in per_step] == [LOGGED_EVERY * n for n in range(1, len(per_step) + 1)] and len(per_step) >= 2
    assert all(values["step/loss"] > 0 and values["step/rate"] > 0 and values["step/images_per_second"] > 0 for values, _ in per_step)


def test_trackers_that_fail_change_nothing_and_are_said_once(calls, pictures, untracked_head, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "END_SECONDS", 5.0)
    names, notes = ["raising", "offline", "full", "hanging", "crashing"], []
    result = train_way("partial", pictures, tmp_path, notes.append, log=",".join([*names, "recording"]))
    notes = [event for event in notes if isinstance(event, Note) and event.phase in names]
    assert_same_model(result, untracked_head)
    said = {note.phase: note.note for note in notes}
    assert sorted(note.phase for note in notes) == sorted(names)
    assert all(note.startswith("the tracker failed: ") and note.endswith("; the run is not affected") for note in said.values())
    assert "No space left on device" in said["full"] and "did not finish in time" in said["hanging"]
    assert read_calls(calls)[-1] == ["end", "finished"]  # of the tracker without a fault


def test_a_resumed_training_continues_its_tracked_run(calls, pictures, untracked, tmp_path):
    with pytest.raises(Interrupted):
        train_way("full", pictures, tmp_path, stopping_at("all layers", 6), log="recording")
    first = read_calls(calls)
    assert first[-1] == ["end", "interrupted"]
    result = train_way("full", pictures, tmp_path, resume=journal.NEWEST, log="recording")
    assert_same_model(result, untracked)
    made = read_calls(calls)
    again = made[len(first)]
    assert again[:2] == first[0][:2] and again[2]["key"] == first[0][2]["key"] and again[2]["resumed"]
    rows = {step: row for row, (_, step) in zip(read_table(made), [each for each in logged(made) if "epoch/accuracy" in each[0]], strict=True)}
    assert without([rows[step] for step in sorted(rows)], "seconds", "rate", "lowest_rate", "images_per_second") == without(
        read_history(result.folder), "seconds"
    )


def test_trackers_of_a_resumed_training_can_be_changed(calls, cli, pictures, tmp_path):
    with pytest.raises(Interrupted):
        train_way("partial", pictures, tmp_path / "exports", stopping_at("head", 2), log="offline")
    outcome = cli("train", pictures, "--resume", "--log", "recording")
    assert outcome.code == 0, outcome.err
    made = read_calls(calls)
    assert made[-1] == ["end", "finished"] and made[0][2]["resumed"] is False  # it has nothing of this run


def test_a_failed_training_ends_its_run_as_failed(calls, pictures, tmp_path):
    def fail(event):
        if event.phase == "head" and not isinstance(event, Note):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        train_way("partial", pictures, tmp_path, fail, log="recording")
    assert read_calls(calls)[-1] == ["end", "failed"]


def test_each_training_of_a_comparison_is_a_run(calls, cli, pictures, tmp_path):
    command = ["compare", pictures, *TINY, "--epochs", 1, "--seeds", 2, "--arms", "partial", "--log", "recording", "--quiet"]
    assert cli(*command).code == 0
    made = read_calls(calls)
    starts = [call for call in made if call[0] == "start"]
    group = starts[0][2]["group"]
    assert [call[1] for call in starts] == [f"{group}-partial-seed0", f"{group}-partial-seed1"] and {call[2]["group"] for call in starts} == {group}
    assert len({call[2]["key"] for call in starts}) == 2 and all(call[2]["values"]["data"]["fingerprint"] for call in starts)
    assert [call for call in made if call[0] == "end"] == [["end", "finished"]] * 2 and len(read_table(made)) == 2
    (tmp_path / "calls.jsonl").unlink()
    assert cli(*command[:-3], "--quiet", "--json").json["reused"] == 2  # --log does not change a training


def test_an_evaluation_is_a_run(calls, cli, run):
    assert tlfast.Run("r").evaluate(log=["recording"], quiet=True)["accuracy"].value == logged(read_calls(calls))[0][0]["final/accuracy"]
    made = read_calls(calls)
    assert made[0][1] == "r-evaluate-valid" and made[0][2]["values"]["run"] == "r" and made[-1] == ["end", "finished"]
    assert ["file", "model.onnx", True] in made
    outcome = cli("evaluate", "r", "--log", "recording", "--quiet")
    assert outcome.code == 0 and len(read_calls(calls)) == 2 * len(made)


def test_python_takes_a_list(calls, pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = tlfast.train(pictures, log=["recording", "offline"], epochs=1, quiet=True, **tlfast.testing.TINY)
    assert done.settings.log == "recording,offline" and read_calls(calls)[0][1] == done.id
    assert "log" not in settings_to_repeat(done.manifest)  # a repeated run has no trackers


def test_ctrl_c_during_the_last_wait_keeps_the_result(calls, monkeypatch, pictures, tmp_path):
    def press(event):
        notes.append(event)
        if event.phase == "trackers":
            signal.raise_signal(signal.SIGINT)

    notes = []
    monkeypatch.setattr(tracking, "SAID_AFTER", 0.1)
    result = train_way("partial", pictures, tmp_path, press, log="hanging")
    assert Path(result.folder, "run.json").is_file()
    said = [note.note for note in notes if isinstance(note, Note) and note.phase in ("trackers", "hanging")]
    assert said[0] == "waiting up to 30 s for hanging; Ctrl-C ends the wait" and "did not finish in time and was stopped" in said[1]


def test_a_process_that_cannot_start_is_said(calls, monkeypatch):
    def refuse(tracker):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    notes = []
    monkeypatch.setattr(tracking, "TrackerProcess", refuse)
    with tracking.open_tracking("recording", notes.append) as tracked:
        assert not tracked
    assert [note.phase for note in notes] == ["recording"] and "Resource temporarily unavailable" in notes[0].note


def test_texts_that_are_not_utf_8_are_replaced(monkeypatch):
    sent = []
    monkeypatch.setattr(tracking, "TrackerProcess", lambda tracker: SimpleNamespace(name=tracker.name, send=sent.append))
    values = {"settings": {"data": "caf\udce9"}, "data": {"counts": {"\udcff": 1}}}
    tracking.Tracking([Recording], print).start("r", RunInfo("t", "out\udce9", "k", values=values), Journal())
    config = sent[0]["config"]
    assert config["values"] == {"settings": {"data": "caf?"}, "data": {"counts": {"?": 1}}}
    assert config["out"] == "out\udce9"  # a folder that the tracker writes
