"""What the processes of one training exchange before they join, played one after another."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from torch import distributed

from tlfast.cli.arguments import find_resumed, parse_arguments
from tlfast.core import Settings, UsageError, torchrun
from tlfast.core.journal import NEWEST, open_journal
from tlfast.training import processes


@pytest.mark.parametrize("end", [KeyboardInterrupt(), RuntimeError("Connection closed by peer")])
def test_the_loss_of_others_does_not_take_the_last_value_from_the_first_process(monkeypatch, end):
    def share(*arguments):
        raise end

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast_object_list", share)
    assert processes.share_last(3) == 3
    end.args = ("a value cannot be pickled",)
    if isinstance(end, RuntimeError):
        with pytest.raises(RuntimeError, match="cannot be pickled"):
            processes.share_last(3)


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
        monkeypatch.setattr(processes, "rendezvous", lambda *arguments, **options: iter([(store, rank, 2)]))

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
