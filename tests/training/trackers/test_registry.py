"""Every registered tracker, and the names of --log."""

from __future__ import annotations

import configparser
import json
from importlib.metadata import EntryPoint

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.trackers import Recording, use_fakes
from tlfast.core import UsageError
from tlfast.core.settings import declared_settings
from tlfast.training.trackers import Tracker, registry
from tlfast.training.trackers.registry import parse_names, registered_trackers

TRACKERS = registered_trackers()


@pytest.mark.parametrize("name", TRACKERS)
def test_declaration_is_complete(name):
    tracker = TRACKERS[name]
    assert tracker.name == name and f"{name}" in declared_settings()["log"].help
    assert all(callable(getattr(tracker, method)) for method in ("start", "log", "file", "end"))
    assert isinstance(tracker.logs_load, bool)
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    assert tracker.install == f'pip install "tlfast[{name}]"' and name in extras["options.extras_require"]
    page = (ROOT / "docs" / "howto" / "track.md").read_text(encoding="utf-8")
    assert f"| {tracker.title} | `--log {name}` | `{tracker.install}` | {tracker.place} |" in page


def test_the_four_trackers():
    assert list(TRACKERS) == ["mlflow", "tensorboard", "trackio", "wandb"]


def test_names(monkeypatch, tmp_path):
    use_fakes(monkeypatch, tmp_path)
    assert parse_names("") == [] == parse_names(" , ")
    assert [tracker.name for tracker in parse_names("recording, raising,recording")] == ["recording", "raising"]
    with pytest.raises(UsageError, match="--log 'recordin' is not one of: ") as caught:
        parse_names("recordin")
    assert caught.value.hint == "Did you mean 'recording'?"
    with pytest.raises(UsageError, match="--log absent needs the package no_such_package_anywhere, which is not installed") as caught:
        parse_names("absent")
    assert caught.value.hint == 'Install it with: pip install "tlfast[absent]"'


def test_a_folder_of_records_is_no_package(monkeypatch, tmp_path):
    use_fakes(monkeypatch, tmp_path)
    (tmp_path / "no_such_package_anywhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="not installed"):
        parse_names("absent")


def test_entry_points(monkeypatch):
    entries = [
        EntryPoint("recording", "tests.helpers.trackers:Recording", registry.ENTRY_POINTS),
        EntryPoint("broken", "tests.helpers.trackers:CONFIG", registry.ENTRY_POINTS),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries if group == "tlfast.trackers" else [])
    with pytest.warns(UserWarning, match=r"the entry point broken of tlfast.trackers cannot be loaded: .* lacks name, title"):
        found = registered_trackers.__wrapped__()
    assert found["recording"] is Recording and "broken" not in found


@pytest.mark.parametrize("words", [["train", "digits"], ["train", "digits", "--dry-run"], ["compare", "digits"]])
def test_a_wrong_name_ends_the_command_before_it_writes(cli, tmp_path, words):
    outcome = cli(*words, "--log", "tensorbord", "--json")
    assert outcome.code == 2 and "--log 'tensorbord' is not one of: mlflow, tensorboard, trackio, wandb" in outcome.json["error"]
    assert outcome.json["hint"] == "Did you mean 'tensorboard'?"
    assert not (tmp_path / "exports").exists()


def test_a_wrong_name_of_evaluate(cli, run):
    outcome = cli("evaluate", "r", "--log", "nothing", "--json")
    assert outcome.code == 2 and json.loads(outcome.out)["hint"] == "Such as: --log mlflow"


def test_the_protocol_is_what_the_registry_checks():
    assert set(Tracker.__annotations__) == {"name", "title", "package", "install", "place", "logs_load"}
