"""The load of the machine."""

from __future__ import annotations

from types import SimpleNamespace

from tlfast.training.trackers import load


def test_load_is_measured_at_intervals(monkeypatch):
    clock = iter([10.0, 12.0, 12.5, 14.0])
    processor = iter([1.0, 4.0, 5.0, 5.0])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(load.time, "process_time", lambda: next(processor))
    measured = load.Load()
    first = measured.measure()
    assert first["system/cores_used"] == 1.5 and first["system/memory_gib"] > 0.01
    assert measured.measure() == {}  # within a second
    assert measured.measure()["system/cores_used"] == 0.5


def test_load_of_a_gpu():
    cuda = SimpleNamespace(
        is_initialized=lambda: True, mem_get_info=lambda: (2**30, 4 * 2**30), memory_allocated=lambda: 2**29, utilization=lambda: 1 / 0
    )  # nvidia-ml-py is missing
    assert load._gpu_values(SimpleNamespace(cuda=cuda)) == {"gpu_memory_gib": 3.0, "gpu_memory_allocated_gib": 0.5}
    assert load._gpu_values(None) == {}
