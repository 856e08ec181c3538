"""Threads on a CPU that other processes use too."""

from __future__ import annotations

import os
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


@needs_two_cores
def test_the_use_of_the_cores_is_that_of_others(monkeypatch, tmp_path):
    stat, clock, own = tmp_path / "stat", [10.0], [3.0]
    ticks = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(threads.time, "process_time", lambda: own[0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2})

    def write(first, ignored, second):
        stat.write_text(f"cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 {first} 0 0 5 5 0 0 0 0 0\ncpu1 {ignored} 0 0 0 0 0 0 0 0 0\ncpu2 0 {second} 0 0 0 0 0 0 0 0\n")

    write(100 * ticks, 0, 50 * ticks)
    use = threads.CoreUse()
    clock[0], own[0] = 12.0, 6.0  # two seconds later; this process has used 1.5 cores
    write(102 * ticks, 2 * ticks, 52 * ticks)  # both of its cores were busy
    assert use.taken() == pytest.approx(0.5)
    clock[0] = 13.0
    assert use.taken() == 0.0
    assert use.taken() == 0.0  # at the same moment
