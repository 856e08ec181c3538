"""tlfast lr-find: a curve for each phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved
from tlfast.commands import lr_find
from tlfast.training import phase as phase_module


@pytest.mark.parametrize(("deep", "last"), [(["--full"], "all layers"), (["--depth", 2], "upper stages")])
def test_lr_find_draws_a_curve_for_each_phase(cli, folder, tmp_path, deep, last):
    tiny = [part for part in TINY if part not in ("--lr", "3e-3")]
    outcome = cli("lr-find", folder, *tiny, *deep, "--json")
    assert outcome.code == 0, outcome.err
    assert list(outcome.json) == ["head", last]
    assert all((tmp_path / found["picture"]).stat().st_size > 5000 and found["suggestion"] > 0 for found in outcome.json.values())
    typed = cli("lr-find", folder, *TINY, "--json")
    assert list(typed.json) == ["head"] and "--lr 3e-3 is not used" in typed.err  # a rate that was typed does not stop the search


def test_settings_of_a_run_are_without_effect(cli, folder):
    outcome = cli("lr-find", folder, *TINY, "--name", "r", "--ema", "--epochs", 1)
    assert outcome.code == 0 and "without effect here: --ema, --name" in outcome.err


@pytest.mark.parametrize("lr", ["auto", "finder"])
@pytest.mark.parametrize("deep", [["--partial"], ["--full"], ["--depth", 2]], ids=str)
def test_the_rates_are_those_of_a_training_with_the_same_settings(cli, folder, tmp_path, deep, lr):
    tiny = [lr if part == "3e-3" else part for part in TINY]
    found = cli("lr-find", folder, *tiny, *deep, "--epochs", 1, "--freeze-epochs", 1, "--json").json
    run = Path(cli("train", folder, *tiny, *deep, "--epochs", 1, "--freeze-epochs", 1, "--json").json["folder"])
    used = {phase["name"]: phase["lr"] for phase in json.loads((run / "run.json").read_text())["phases"]}
    assert {phase: values["rate"] for phase, values in found.items()} == used
    assert lr == "auto" or used == {phase: values["suggestion"] for phase, values in found.items()}


def test_the_last_search_also_halves_the_batch(folder, tmp_path, monkeypatch):
    def short(learn, phase, *arguments):
        if phase == "all layers" and learn.dls.train.bs > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find_rate(learn, phase, *arguments)

    find_rate = phase_module.find_rate
    monkeypatch.setattr(phase_module, "find_rate", short)
    task, chosen = resolved(folder, "full", lr="auto", bs=8, out=str(tmp_path))
    notes = []
    found = lr_find.find_rates(task, chosen, lambda event: notes.append(getattr(event, "note", "")))
    assert list(found.curves) == ["head", "all layers"] and any(note.startswith("out of memory with 8 images") for note in notes)
