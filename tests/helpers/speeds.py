"""Measurements of speed: a tiny one, and invented results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tlfast.commands import doctor_bench, usual_speeds
from tlfast.commands.doctor_reasons import Conditions
from tlfast.commands.usual_speeds import UsualSpeed
from tlfast.training.types import MEASURES, Speed, Workload

TINY_WORKLOAD = Workload(arch="test_resnet", size=32, bs=4, pictures=6, drawn=(40, 32), seconds=0.0)
QUIET = Conditions(
    cores=2,
    threads=2,
    thread_limits={},
    quota=None,
    load=0.0,
    taken=0.0,
    stolen=0.0,
    scaling=1.9,
    frequency=1.0,
    instructions="AVX2",
    torch_instructions="AVX2",
    instruction_limits=[],
    math_libraries=["MKL"],
    debug_allocators=[],
    disk=500.0,
)


def use_tiny_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `doctor --bench` draw three small images and run each measure once."""
    monkeypatch.setattr(doctor_bench, "WORKLOAD", TINY_WORKLOAD)


def use_usual(monkeypatch: pytest.MonkeyPatch, kind: str, per_core: float) -> None:
    """Replace the table of usual speeds by one with the same figure for every measure of a kind."""
    monkeypatch.setattr(usual_speeds, "USUAL_SPEEDS", tuple(UsualSpeed(name, kind, per_core, 2, "invented") for name in MEASURES))


def conditions(**changes: Any) -> Conditions:
    """Return the state of a quiet machine with two cores, with changes."""
    return replace(QUIET, **changes)


def speeds(per_second: float, **others: float) -> list[Speed]:
    """Return the same speed for every measure, but for those given by name."""
    return [Speed(name, others.get(name, per_second), 3) for name in MEASURES]
