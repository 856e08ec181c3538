"""The ONNX network."""

from __future__ import annotations

import numpy as np

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
