"""Facts that the report and the model card share."""

from __future__ import annotations

import shlex

import pytest

from tlfast.core.runs import RunRecord, read_metrics
from tlfast.core.settings import Settings
from tlfast.evaluation.report.facts import collect_facts, describe_trained_layers


@pytest.mark.parametrize(
    ("depth", "sentence"),
    [
        ("0", "The classifier of `resnet50` was"),
        ("1", "The classifier and the topmost stage of `resnet50` were"),
        ("4", "The classifier and the top 4 stages of `resnet50` were"),
        ("all", "All layers of `resnet50` were"),
    ],
)
def test_the_model_card_names_the_trained_layers(depth, sentence):
    settings = Settings.from_dict({"task": "digits", "arch": "resnet50", "strategy": "", "depth": depth})
    assert describe_trained_layers(settings) == sentence


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"preset": "good", "strategy": "depth", "depth": "3"}, "--depth 3"),
        ({"preset": "quick", "strategy": "full"}, "--full"),
        ({"preset": "quick", "strategy": "partial"}, ""),
        ({"preset": "best", "strategy": "depth", "depth": "2", "epochs": 30, "mixup": 0.2}, "--depth 2"),
    ],
)
def test_the_command_repeats_a_run_of_a_preset(run, cli, changes, options):
    written = RunRecord(run.folder, {**run.manifest, "settings": {**run.manifest["settings"], **changes}})
    command = collect_facts(written, read_metrics(run.folder))["command"]
    repeated = cli(*shlex.split(command)[1:], "--dry-run", "--json")
    assert repeated.code == 0 and options in command, repeated.err
    assert {**repeated.json["settings"], "preset": changes["preset"], "name": run.id} == written.settings.to_dict()
