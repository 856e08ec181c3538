"""A training step never waits for the GPU; a stand-in for the GPU counts the calls that would."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.helpers.paths import ROOT
from tests.helpers.syncs import STEPS, count_waiting_calls

from sync_counter import DEVICE, StandIn  # isort: skip (of scripts/, which the line before adds to the path)


@pytest.mark.parametrize("name", STEPS)
def test_no_call_of_a_step_waits(name, pictures):
    found = count_waiting_calls(name, pictures)
    assert found["places"] == {} and found["count"] == 0


def test_the_measurement_is_a_program(pictures):
    strategy, settings = STEPS["partial"]
    given = {"images": str(pictures), "weights": "", "strategy": strategy, "settings": {**settings, "bs": 2, "epochs": 60}}
    command = [sys.executable, str(ROOT / "scripts" / "bench_measurements.py"), "syncs", json.dumps(given)]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert found["places"] == {} and found["count"] == 0


HOST, ON_DEVICE = "made in main memory", "on the device"
CALLS = {
    "item": (lambda x: x.sum().item(), {ON_DEVICE}),
    "float": (lambda x: float(x[0]), {ON_DEVICE}),
    "truth": (lambda x: bool((x == 0).any()), {ON_DEVICE}),
    "copy to main memory": (lambda x: x.cpu(), {ON_DEVICE}),
    "copy to the device": (lambda x: x.to(DEVICE), {HOST}),
    "values from a list": (lambda x: torch.tensor([1.0], device=x.device), {ON_DEVICE}),
    "mask": (lambda x: x[x > 0], {ON_DEVICE}),
    "index from main memory": (lambda x: x[torch.tensor([0, 1])], {ON_DEVICE}),
    "equations": (lambda x: torch.linalg.solve(torch.eye(3, device=x.device), x), {ON_DEVICE}),
    "arithmetic": (lambda x: (x * 2 + 1).argmax(), set()),
    "constant": (lambda x: torch.zeros(3, device=x.device) + x, set()),
}


@pytest.mark.parametrize("place", [HOST, ON_DEVICE])
@pytest.mark.parametrize("name", CALLS)
def test_the_stand_in_counts_what_would_wait(name, place):
    call, waiting = CALLS[name]
    counted = []
    before = torch.ones(3)
    with StandIn(lambda: counted.append(1)):
        call(before if place == ON_DEVICE else torch.ones(3))
    assert len(counted) == (place in waiting)
