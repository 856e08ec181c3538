"""`tlfast compare --engine ray`: the results of one process, also if a node is lost."""

from __future__ import annotations

import json
import socket

import pytest

from tests.helpers.command_line import TINY, invoke
from tests.helpers.engines import BIRDS, Recorded
from tlfast.commands import comparison_trainings, elsewhere
from tlfast.core import Settings, UsageError, ignore_event
from tlfast.distributed import engines as engines_module
from tlfast.evaluation import Arm
from tlfast.tasks import find_task
from tlfast.training.experiments import Trial

pytest.importorskip("ray")
QUICK = ["--arms", "partial,1", "--epochs", 2, "--freeze-epochs", 1, "--views", 1, "--json"]


@pytest.fixture
def train_elsewhere(tmp_path, monkeypatch):
    """Run two trainings of a task file by an engine. The argument stands for `run_trial`."""
    (tmp_path / "birds.py").write_text(BIRDS)
    task, settings = find_task(str(tmp_path / "birds.py"))[0], Settings(task="birds")
    trainings = [comparison_trainings._Training(Arm("partial", settings), 1.0, settings, name) for name in ("one", "two")]

    def train(run_trial):
        monkeypatch.setattr(comparison_trainings.experiments, "run_trial", lambda task, *arguments: run_trial(task))
        return comparison_trainings._train_elsewhere(Recorded(), task, trainings, ignore_event)

    return train


def test_other_processes_execute_the_file_of_a_task(train_elsewhere, folder):
    read = []
    trial = Trial(folder / "red" / "1.png", folder, 1.0, 36, False)  # any file
    done = train_elsewhere(lambda task: read.append(task.rows(folder, None)) or trial)
    assert done == {"one": trial, "two": trial} and [len(rows) for rows in read] == [36, 36]


def test_a_machine_with_another_cache_or_other_packages_is_named(train_elsewhere, folder, monkeypatch):
    monkeypatch.setattr(elsewhere, "ARRIVAL_SECONDS", 0.0)
    machine = socket.gethostname()
    with pytest.raises(UsageError, match=f"the result of {machine} is not in the cache of this machine") as error:
        train_elsewhere(lambda task: Trial(folder / "missing", folder, 1.0, 36, False))
    assert "Name a folder that all machines share in TLFAST_CACHE" in error.value.hint
    versions = iter([{"timm": "1.0"}, {"timm": "1.1"}])
    monkeypatch.setattr(elsewhere, "package_versions", lambda: next(versions))
    with pytest.raises(UsageError, match=f"{machine} has timm 1.1, and the machine of the command 1.0"):
        train_elsewhere(lambda task: None)


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
