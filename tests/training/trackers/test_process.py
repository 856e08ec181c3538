"""A tracker in a process of its own: it can fail in any way, and the training does not wait for it."""

from __future__ import annotations

import os
import time

import pytest

from tests.helpers.trackers import FAKES, read_calls, use_fakes
from tlfast.training.trackers import process as process_module
from tlfast.training.trackers.process import TrackerProcess

START = {"do": "start", "run_id": "r", "config": {"task": "t", "out": "o", "key": "k"}}
LOG = {"do": "log", "values": {"a": 1.0}, "step": 1}
END = {"do": "end", "status": "finished"}


@pytest.fixture
def calls(monkeypatch, tmp_path):
    return use_fakes(monkeypatch, tmp_path)


def run(name: str, *messages) -> TrackerProcess:
    """Send messages to a tracker and let it end."""
    process = TrackerProcess(FAKES[name])
    for message in messages:
        process.send(message)
    process.finish()
    assert process.wait(60) and process.process.poll() is not None
    process.stop()  # nothing is left to stop
    return process


def test_messages_arrive_in_order(calls):
    process = run("recording", START, *[{**LOG, "step": i} for i in range(100)], END)
    assert process.failure == "" and process.dropped == 0
    made = read_calls(calls)
    assert [call[0] for call in made] == ["start", *["log"] * 100, "end"] and [call[2] for call in made[1:-1]] == list(range(100))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raising", "no such project"),
        ("offline", "the server is out of reach"),
        ("full", "[Errno 28] No space left on device: '/records'"),
        ("crashing", "its process ended with exit code 3"),
    ],
)
def test_a_failure_has_a_reason(calls, name, reason):
    assert run(name, START, LOG, LOG, END).failure == reason


def test_a_tracker_that_hangs_is_stopped(calls, monkeypatch):
    monkeypatch.setattr(process_module, "QUEUED", 10)
    process = TrackerProcess(FAKES["hanging"])
    process.send(START)
    deadline = time.monotonic() + 60
    while not calls.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    while process.messages.qsize() < 10 and time.monotonic() < deadline:  # until the pipe is full too
        for _ in range(1000):
            process.send({**LOG, "values": {"a" * 100: 1.0}})
        time.sleep(0.2)  # for the thread that writes to the pipe
    process.send(END)  # an end is never dropped
    assert process.dropped > 100 and process.messages.qsize() == 11
    process.finish()
    assert not process.wait(0.2)
    process.stop()
    assert process.failure == "it did not finish in time and was stopped"
    assert not process.thread.is_alive() and process.process.poll() is not None


def test_no_message_is_queued_for_a_tracker_that_has_ended(calls):
    process = run("raising", START, LOG)
    process.send(LOG)
    assert process.dropped == 0 and process.process.returncode == 1


def test_signals_of_the_terminal_do_not_reach_it(calls):
    process = TrackerProcess(FAKES["recording"])
    assert os.getpgid(process.process.pid) != os.getpgid(0)
    process.finish()
    assert process.wait(60) and process.failure == ""
