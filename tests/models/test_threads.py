"""Threads on a CPU that other processes use too."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tlfast.models import threads

CPU = torch.device("cpu")
needs_two_cores = pytest.mark.skipif(not threads.STAT.exists(), reason="there is no /proc/stat")


def wait_for(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def is_open() -> bool:
    return any(thread.name == "tlfast-idle-team" for thread in threading.enumerate())


@needs_two_cores
def test_a_team_is_open_while_others_use_the_cores(monkeypatch):
    taken = [1.0]
    monkeypatch.setattr(threads, "INTERVAL", 0.01)
    monkeypatch.setattr(threads.CoreUse, "taken", lambda self: taken[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with threads.share_cores(CPU):
        assert wait_for(is_open)
        taken[0] = (threads.TAKEN + threads.FREE) / 2  # neither free nor taken: as before
        time.sleep(0.1)
        assert is_open()
        taken[0] = 0.0
        assert wait_for(lambda: not is_open())
        taken[0] = 1.0
        assert wait_for(is_open)
    assert not is_open() and not any(thread.name == "tlfast-core-use" for thread in threading.enumerate())


def test_nothing_is_watched_where_it_would_not_help(monkeypatch):
    def fail(self):
        raise AssertionError("watched")

    monkeypatch.setattr(threads._Watcher, "start", fail)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with threads.share_cores(CPU):
        pass
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with threads.share_cores(torch.device("cuda")):
        pass
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the user has chosen
    with threads.share_cores(CPU):
        pass
    monkeypatch.delenv("OMP_WAIT_POLICY")
    if threads.STAT.exists():
        with pytest.raises(AssertionError, match="watched"), threads.share_cores(CPU):
            pass
