"""--bs auto."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved
from tlfast.core.errors import UsageError
from tlfast.core.events import Note
from tlfast.core.settings import Settings, build_settings
from tlfast.training import batch_size, trainer
from tlfast.training.strategies import get_strategy


@pytest.mark.parametrize(
    ("speeds", "largest", "expected"),
    [
        ({64: 100, 128: 190, 256: 300, 512: 320}, 10_000, 256),  # the last doubling gains less than a tenth
        ({64: 100, 128: 105}, 10_000, 64),
        ({64: 100, 128: 200}, 128, 128),  # larger batches would leave too few steps
        ({64: 100}, 20, 64),
        ({64: torch.OutOfMemoryError("CUDA out of memory")}, 10_000, 64),  # training halves it
        ({64: 100, 128: 200, 256: torch.OutOfMemoryError("CUDA out of memory")}, 10_000, 128),
    ],
)
def test_the_batch_grows_while_it_pays_and_fits(speeds, largest, expected):
    def measure(bs):
        if isinstance(speeds[bs], Exception):
            raise speeds[bs]
        return speeds[bs]

    assert batch_size.grow_batch(measure, largest) == expected


def test_other_errors_are_not_taken_for_memory():
    def measure(bs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        batch_size.grow_batch(measure, 1000)


@pytest.mark.parametrize("value", ["auto", "32", 32])
def test_the_setting_takes_a_number_or_auto_and_survives_its_file(value):
    settings = build_settings({"task": "fer", "bs": value})
    assert settings.to_dict()["bs"] == (value if value == "auto" else 32)
    assert Settings.from_dict(settings.to_dict()).bs == settings.bs


@pytest.mark.parametrize(("value", "message"), [("many", "--bs 'many' is neither a whole number nor auto"), (0, "--bs 0 must lie"), ("0", "--bs 0 must lie")])
def test_other_values_are_refused(value, message):
    with pytest.raises(UsageError, match=message):
        build_settings({"task": "fer", "bs": value})


@pytest.mark.parametrize(("strategy", "flags"), [("full", {}), ("depth", {"depth": "1"})])
def test_a_rate_is_scaled_by_the_square_root_and_both_are_reported(folder, monkeypatch, strategy, flags):
    monkeypatch.setattr(batch_size, "grow_batch", lambda measure, largest: 256 if measure(64) > 0 else 0)
    task, chosen = resolved(folder, strategy, **{**flags, "bs": "auto", "lr": "1e-3"})
    notes = []
    with trainer.prepare(task, chosen, notes.append) as session:
        settled, _ = get_strategy(strategy).resolve(session, chosen)
        again, _ = get_strategy(strategy).resolve(session, chosen)
    assert (settled.bs, settled.lr) == (again.bs, again.lr) == (256, "0.002")
    said = [event.note for event in notes if isinstance(event, Note) and event.phase == "batch size"]
    assert said[0].startswith("batches of 256 images; images/s by batch size: 64 ") and "learning rate 0.002 instead of 1e-3" in said[1]


@pytest.mark.parametrize("strategy", [["--full"], ["--depth", 1], ["--partial"], ["--minutes", 1]], ids=str)
def test_each_strategy_trains_with_it_and_records_the_number(strategy, folder, cli, monkeypatch):
    monkeypatch.setattr(batch_size, "grow_batch", lambda measure, largest: 12)
    outcome = cli("train", folder, *TINY, *strategy, "--bs", "auto", "--epochs", 1, "--no-onnx", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    settings = json.loads((Path(outcome.json["folder"]) / "run.json").read_text())["settings"]
    assert settings["bs"] == (64 if settings["strategy"] == "partial" else 12)


def test_a_batch_of_one_image(cli, folder):
    refused = cli("train", folder, *TINY, "--bs", 1, "--full", "--accumulate", 8)
    assert refused.code == 2 and "BatchNorm cannot train on a single image" in refused.err and "Use --bs 2 --accumulate 4" in refused.err
    assert cli("train", folder, *TINY, "--bs", 1, "--epochs", 1, "--no-onnx", "--quiet").code == 0  # batches of features
