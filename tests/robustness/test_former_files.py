"""Files of the previous layout are read: run.json by --config, journal.json by --resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.former import read_former
from tlfast.core import runs
from tlfast.core.journal import Facts
from tlfast.core.settings import Settings


@pytest.fixture
def former(pictures, tmp_path):
    """The path of a `run.json` of the previous layout."""
    path = tmp_path / "former" / "run.json"
    path.parent.mkdir()
    path.write_text(read_former("run-0.1.json", pictures), encoding="utf-8")
    return path


def test_settings_of_a_former_run(former):
    written = runs.read_run(former.parent).manifest["settings"]
    settings = Settings.from_dict(written)
    assert written["strategy"] == "middle"
    assert (settings.strategy, settings.depth) == ("depth", "2")
    read = settings.to_dict()
    former_values = {name: value for name, value in written.items() if name in read and name != "strategy"}
    assert {name: read[name] for name in former_values} == former_values
    assert set(written) - set(read) <= {"folds", "base_seed", "most_epochs"}  # internals, which no user sets


def test_a_former_run_is_repeated(cli, former, pictures):
    plan = cli("train", "--config", former, "--dry-run", "--json")
    assert plan.code == 0, plan.err
    settings = plan.json["settings"]
    assert (settings["strategy"], settings["depth"], settings["epochs"], settings["views"]) == ("depth", "2", 1, 2)
    outcome = cli("train", "--config", former, "--json")
    assert outcome.code == 0, outcome.err
    assert "differ from those of the repeated run" not in outcome.err
    assert outcome.json["run"].endswith("-depth-2-test_resnet") and outcome.json["data"]["source"] == str(pictures)
    assert [phase["name"] for phase in outcome.json["phases"]] == [phase["name"] for phase in json.loads(former.read_text())["phases"]]


def test_facts_of_a_former_journal(pictures):
    written = json.loads(read_former("journal-0.1.json", pictures))
    facts = Facts.from_dict(written)
    assert (facts.images, facts.weights, facts.room, facts.precision) == (written["images"], written["weights"], ["2", 2], "off")
    assert facts.settings["strategy"] == "middle" and Settings.from_dict(facts.settings).strategy == "depth"
    assert facts.others["rates of head"] == written["rates of head"]
    assert facts.to_dict() == written


def test_a_former_training_is_resumed(cli, pictures):
    folder = Path("exports", "pictures", "cut.unfinished")
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "journal.json").write_text(read_former("journal-0.1.json", pictures), encoding="utf-8")
    rates = json.loads((folder / "journal.json").read_text())
    outcome = cli("train", pictures, "--resume", "cut", "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["run"], outcome.json["settings"]["strategy"], outcome.json["settings"]["depth"]) == ("cut", "depth", "2")
    assert "finding the rate" not in outcome.err
    for phase, name in zip(outcome.json["phases"], ("head", "upper stages"), strict=True):
        assert phase["name"] == name and phase["lr"] == rates[f"rates of {name}"]["suggestion"]  # as it was found before
    assert not folder.exists()
