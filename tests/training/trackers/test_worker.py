"""The messages of a training become calls of a tracker."""

from __future__ import annotations

import json

import pytest

from tests.helpers.trackers import CALLS, Recording, read_calls
from tlfast.training.trackers.worker import run_tracker

START = {"do": "start", "run_id": "r", "config": {"task": "t", "out": "o", "key": "k"}}


class LogsLoad(Recording):
    logs_load = True


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Return a function that passes messages to a tracker and returns its calls."""
    monkeypatch.setenv(CALLS, str(tmp_path / "calls"))

    def run(*messages, kind=Recording):
        run_tracker(kind, map(json.dumps, messages))
        return read_calls(tmp_path / "calls")

    return run


def test_calls_are_in_order(calls, tmp_path):
    end, file = {"do": "end", "status": "finished"}, {"do": "file", "path": str(tmp_path / "none.png")}
    made = calls(START, {"do": "log", "values": {"a": float("nan")}, "step": 1}, file, end, {**START, "run_id": "second"}, end)
    assert [call[0] for call in made] == ["start", "log", "file", "end", "start", "end"]
    assert made[0][2]["key"] == "k" and made[0][2]["resumed"] is False
    assert made[1][1]["a"] != made[1][1]["a"] and made[2][1:] == ["none.png", False] and made[4][1] == "second"


def test_a_run_without_an_end_has_failed(calls):
    assert calls(START)[-1] == ["end", "failed"]


def test_figures_outside_of_a_run_are_ignored(calls):
    assert calls({"do": "log", "values": {"a": 1.0}, "step": 1}, {"do": "end", "status": "finished"}) == []


def test_the_load_of_the_machine_is_logged_once(calls):
    values = {"system/memory_gib": 1.0, "a": 2.0}
    log, load = {"do": "log", "values": values, "step": 1}, {"do": "log", "values": {"system/memory_gib": 1.0}, "step": 1}
    assert calls(START, log)[1] == ["log", values, 1]
    assert [call[1] for call in calls(START, log, load, kind=LogsLoad)[3:] if call[0] == "log"] == [{"a": 2.0}]
