"""`tlfast compare --engine ray`: the results of one process, also if a node is lost."""

from __future__ import annotations

import json

import pytest

from tests.helpers.command_line import TINY, invoke
from tlfast.distributed import engines as engines_module

pytest.importorskip("ray")
QUICK = ["--arms", "partial,1", "--epochs", 2, "--freeze-epochs", 1, "--views", 1, "--json"]


def outcomes(found):
    """Return what a comparison found, without times and places."""
    arms = [{name: value for name, value in arm.items() if name not in ("seconds", "milliseconds", "settings")} for arm in found["arms"]]
    return arms, found["differences"]


@pytest.mark.slow
def test_trainings_of_two_nodes_are_those_of_one_process(cluster, remove_node, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["compare", folder, *TINY, *QUICK, "--seeds", 1]
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "here"))
    here = invoke(*command)
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "there"))
    there = invoke(*command, "--engine", "ray", "--address", cluster.address)
    assert there.code == 0, there.err
    assert outcomes(there.json) == outcomes(here.json) and there.json["reused"] == 0
    again = invoke(*command)
    assert again.json["reused"] == 2 and outcomes(again.json) == outcomes(here.json)


@pytest.mark.slow
def test_a_lost_node_repeats_no_training_that_was_done(cluster, remove_node, folder, tmp_path, monkeypatch, cache_folder):
    monkeypatch.chdir(tmp_path)
    done: dict[str, int] = {}

    def list_trainings():
        return {path.parent.name: path.stat().st_ino for path in cache_folder.glob("trainings/[!.]*/predictions.parquet")}

    get = engines_module._get

    def remove(ray, reference):
        result = get(ray, reference)
        if not done:
            done.update(list_trainings())
            remove_node()
        return result

    monkeypatch.setattr(engines_module, "_get", remove)
    outcome = invoke("compare", folder, *TINY, *QUICK, "--seeds", 2, "--engine", "ray", "--address", cluster.address)
    assert outcome.code == 0, outcome.err
    trainings = list_trainings()
    assert done and len(trainings) == 4 and done.items() <= trainings.items()
    assert len(json.loads(outcome.out)["arms"]) == 2
