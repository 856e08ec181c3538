"""The processes of one training: their share of the cores, and what they exchange, played one after another."""

from __future__ import annotations

import importlib
import itertools
import os
from contextlib import suppress

import pytest
import torch
from torch import distributed

from tlfast.cli.arguments import find_resumed, parse_arguments
from tlfast.core import Settings, UsageError, cache, system, torchrun
from tlfast.core.journal import NEWEST, open_journal
from tlfast.training import processes


@pytest.mark.parametrize("end", [KeyboardInterrupt(), RuntimeError("Connection closed by peer")])
def test_the_loss_of_others_does_not_take_the_last_value_from_the_first_process(monkeypatch, end):
    def end_early(*arguments):
        raise end

    monkeypatch.setattr(processes, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast_object_list", end_early)
    assert processes.broadcast_last(3) == 3
    end.args = ("a value cannot be pickled",)
    if isinstance(end, RuntimeError):
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            processes.broadcast_last(3)


@pytest.fixture
def become(monkeypatch, tmp_path):
    """Make this process the one with the given rank, on a machine of its own."""
    store = distributed.HashStore()
    monkeypatch.setenv(torchrun.RUN_ID, "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    def become(rank):
        (tmp_path / str(rank)).mkdir()
        monkeypatch.chdir(tmp_path / str(rank))
        monkeypatch.setattr(processes, "_numbers", itertools.count())
        monkeypatch.setattr(importlib.import_module("torch.distributed.rendezvous"), "rendezvous", lambda *arguments, **options: iter([(store, rank, 2)]))

    return become


def test_the_first_process_finds_the_training_to_resume(become, pictures):
    def find():
        task, run = find_resumed(NEWEST, "exports")
        with pytest.raises(UsageError, match="--resume other: no interrupted training of that name in exports"):
            find_resumed("other", "exports")
        return task, *parse_arguments(task, {}).resumed(run, None)

    become(0)
    settings = Settings(task="pictures", data=str(pictures), seed=3)
    with suppress(KeyboardInterrupt), open_journal("exports", "pictures", "mine", settings.to_dict()):
        raise KeyboardInterrupt
    task, found, run = find()
    assert (task, found.seed, run) == (str(pictures), 3, "mine")
    become(1)
    assert find() == (task, found, run)


@pytest.mark.parametrize(("cores", "threads"), [(8, 4), (1, 1)])
def test_a_process_has_as_many_threads_as_its_share_of_the_cores(cores, threads, monkeypatch):
    chosen = []
    for name, value in {"TORCHELASTIC_RUN_ID": "run", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    monkeypatch.setattr(system, "_limit", None)
    monkeypatch.setattr(cache, "wait_for_others", lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(processes.distributed, name, lambda *arguments, **options: None)
    with processes.join(Settings(task="t", device="cpu")) as count:
        assert count == 1 and system.count_cores() == threads
    assert chosen == [threads]
