"""The ONNX network."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tlfast.core.run_files import ONNX_FILE
from tlfast.inference import onnx_model


def test_only_as_much_is_decoded_ahead_as_memory_allows():
    opened, taken = [], []

    def opener(source):
        opened.append(source)
        return np.zeros((1000, 1000, 3), np.uint8)

    for name, _ in onnx_model._decode_ahead(iter(range(200)), opener):
        taken.append(name)
        assert len(opened) - len(taken) <= onnx_model.AHEAD // 3_000_000
    assert len(taken) == len(opened) == 200


def test_large_images_are_decoded_by_each_core_only_if_the_memory_suffices(monkeypatch):
    monkeypatch.setattr(onnx_model, "count_cores", lambda: 16)
    monkeypatch.setattr(onnx_model, "assume_free_memory", lambda: 2.0 * 2**30)
    opened = []
    for taken, _ in enumerate(onnx_model._decode_ahead(range(12), lambda source: opened.append(source) or np.zeros((10_000, 5_000, 3), np.uint8)), start=1):
        assert len(opened) - taken <= 2
    assert onnx_model._count_ahead(150_000_000, 64 << 30) == 16
    assert onnx_model._count_ahead(150_000, 2 << 30) == 2 * onnx_model.BATCH


@pytest.mark.parametrize(("load", "spins"), [(0.0, True), (0.4, True), (0.5, False), (8.0, False)])
def test_threads_wait_actively_only_on_a_quiet_machine(trained_run, monkeypatch, load, spins):
    monkeypatch.setattr(onnx_model, "load_average", lambda: load)
    entries = []
    monkeypatch.setattr(onnxruntime.SessionOptions, "add_session_config_entry", lambda self, name, value: entries.append((name, value)))
    onnx_model.open_network(trained_run.partial / ONNX_FILE)
    assert entries == ([] if spins else [("session.intra_op.allow_spinning", "0")])
