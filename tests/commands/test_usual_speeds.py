"""The table of usual speeds."""

from __future__ import annotations

import pytest

from tests.helpers.speeds import use_usual
from tlfast.commands.usual_speeds import GPUS, KINDS, MAX_CORES, USUAL_SPEEDS, find_usual
from tlfast.training.types import MEASURES


def test_every_entry_is_of_a_known_measure_and_kind_once():
    keys = [(usual.measure, usual.kind) for usual in USUAL_SPEEDS]
    assert USUAL_SPEEDS and len(set(keys)) == len(keys)
    assert {measure for measure, _ in keys} <= set(MEASURES) and {kind for _, kind in keys} <= set(KINDS)
    assert all(usual.per_core > 0 and usual.cores >= 1 and usual.source for usual in USUAL_SPEEDS)


def test_entries_of_gpus_are_of_measures_that_run_there():
    assert all(MEASURES[usual.measure].on_device for usual in USUAL_SPEEDS if usual.kind in GPUS)


@pytest.mark.parametrize(("cores", "expected"), [(1, 10.0), (4, 20.0), (MAX_CORES, 40.0), (64, 40.0)])
def test_a_usual_speed_grows_with_the_root_of_the_cores_up_to_a_limit(monkeypatch, cores, expected):
    use_usual(monkeypatch, "AVX2", 10.0)
    assert find_usual("step", "AVX2", cores) == expected
    assert find_usual("step", "AMX", cores) is None
