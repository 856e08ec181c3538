"""Measurement of this machine with a tiny network."""

from __future__ import annotations

import tempfile

import pytest
import torch

from tests.helpers.speeds import TINY_WORKLOAD
from tlfast.core import cache
from tlfast.training import amp, profiler, speed
from tlfast.training.types import MEASURES, Speed


@pytest.fixture(autouse=True)
def in_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_every_measure_has_a_speed_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: True)  # the choice of the number format is cached
    said = []
    device, speeds = speed.measure_speeds(TINY_WORKLOAD, said.append)
    assert device.type in ("cpu", "cuda", "mps")
    assert [each.measure for each in speeds] == list(MEASURES)
    assert all(each.per_second > 0 and each.repetitions >= 1 for each in speeds)
    assert [bool(each.precision) for each in speeds] == [False, False, False, True, True]
    assert not list(tmp_path.iterdir()) and not cache.list_entries()
    ends = {event.phase: event.done == event.total for event in said}
    assert ends == {"drawing images": True, **{f"measuring: {measure.title}": True for measure in MEASURES.values()}}


def test_nothing_is_left_after_an_interruption(tmp_path):
    def interrupt(event):
        if event.phase.startswith("measuring"):
            assert list(tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        speed.measure_speeds(TINY_WORKLOAD, interrupt)
    assert not list(tmp_path.iterdir()) and not cache.list_entries()


def test_a_measure_ends_with_its_share_of_the_seconds_and_reports_the_median(monkeypatch):
    clock, values = [100.0], iter([0.5, 0.1, 0.25, 9.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(speed, "STAT", speed.Path("/none"))

    def run():
        clock[0] += 1.0
        return [next(values)]

    share = MEASURES["decode_one"].share
    assert speed._measure("decode_one", run, 2.5 / share, "", lambda event: None) == Speed("decode_one", 4.0, 3)
    assert next(values) == 9.0


def test_the_shares_of_the_measures_are_the_whole():
    assert sum(measure.share for measure in MEASURES.values()) == pytest.approx(1)


def test_images_are_decoded_by_the_functions_of_the_library(monkeypatch):
    opened = []
    monkeypatch.setattr(speed.images, "open_image", lambda path: opened.append(path) or speed.Image.new("RGB", (1, 1)))
    for alone in (True, False):
        (seconds,) = speed._time_decoding(["a", "b"], alone)
        assert seconds >= 0 and sorted(opened) == ["a", "b"]
        opened.clear()


def test_loading_is_timed_until_the_device_has_finished(monkeypatch):
    waited = []
    with speed._open_session(TINY_WORKLOAD, lambda event: None) as session:
        monkeypatch.setattr(profiler, "synchronize", waited.append)
        state = session.learn.dls.train.rng.getstate()
        assert len(profiler.time_loading(session.learn)) == len(waited) - 1 == profiler.REPEATS
        assert session.learn.dls.train.rng.getstate() == state
    assert {type(device) for device in waited} == {torch.device}
