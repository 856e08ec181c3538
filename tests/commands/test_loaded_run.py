"""A finished run, loaded on any machine."""

from __future__ import annotations

import pytest

from tlfast.core.runs import seal


@pytest.mark.parametrize("command", ["interpret", "evaluate", "report"])
def test_a_run_of_a_gpu_opens_where_there_is_none(command, run, cli):
    seal(run.folder, {**run.manifest, "settings": {**run.manifest["settings"], "device": "cuda"}})
    outcome = cli(command, "r", "--json")
    assert outcome.code == 0, outcome.out
    outcome = cli(command, "r", "--device", "mps")
    assert outcome.code == 2 and "--device mps: torch finds no such device" in outcome.err and "--device auto" in outcome.err
