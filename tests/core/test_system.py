"""What tlfast knows of the machine."""

from __future__ import annotations

import os

import pytest

from tlfast.core import system


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores of a process are known on Linux")
def test_a_limit_of_cores_ends(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    counts = []
    for limit in (3, 20, None):
        system.limit_cores(limit)
        counts.append(system.count_cores())
    assert counts == [3, 8, 8]
