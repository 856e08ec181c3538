"""What tlfast knows of the machine."""

from __future__ import annotations

import os

import pytest

from tests.helpers.command_line import python
from tlfast.core import system


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the cores of a process are known on Linux")
def test_a_limit_of_cores_ends(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    counts = []
    for limit in (3, 20, None):
        system.limit_cores(limit)
        counts.append(system.count_cores())
    assert counts == [3, 8, 8]


def test_a_home_folder_that_cannot_be_written_to_is_no_warning():
    code = "from tlfast.core.system import hide_known_warnings; hide_known_warnings(); import matplotlib.pyplot"
    assert python(code, HOME="/proc/none", XDG_CONFIG_HOME="", XDG_CACHE_HOME="", MPLCONFIGDIR="").stderr == ""
