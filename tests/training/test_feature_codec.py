"""The number formats that activations are kept in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlfast.training.feature_codec import decode, encode, row_shape, row_type

SHAPES = [(6, 5, 4), (7, 9), (8,)]  # a stage's, a transformer's tokens, features


def values(size, seed=0):
    """Activations whose channels differ a thousandfold, one of them nothing but zeros."""
    drawn = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))
    channels = size[0] if len(size) == 3 else size[-1]
    factor = torch.logspace(-2, 1, channels)
    factor[1] = 0
    return drawn * (factor[:, None, None] if len(size) == 3 else factor)


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(("number_format", "share"), [("fp32", 0.0), ("fp16", 2**-11), ("int8", 0.51 / 127)])
def test_what_is_kept_comes_back(size, number_format, share):
    made = values(size)
    rows = encode(made, number_format)
    assert rows.dtype == row_type(size, number_format).base and len(rows) == 3 and row_shape(rows) == size
    back = decode(rows)
    largest = made.abs().amax(dim=(2, 3) if len(size) == 3 else 1, keepdim=True) if len(size) > 1 else made.abs()
    assert back.dtype == torch.float32 and ((back - made).abs() <= share * largest + 1e-6).all()
    assert (back != 0).any()


@pytest.mark.parametrize("size", SHAPES)
def test_rows_survive_a_file(size, tmp_path):
    for number_format in ("fp16", "fp32", "int8"):
        rows = encode(values(size), number_format)
        (tmp_path / "rows").write_bytes(rows.tobytes())
        read = np.memmap(tmp_path / "rows", row_type(size, number_format), "r", shape=(3,))
        assert torch.equal(decode(read[np.array([2, 0])]), decode(rows)[[2, 0]])


def test_a_byte_a_value_and_what_a_channel_needs():
    assert row_type((32, 12, 12), "int8").itemsize == 32 * (12 * 12 + 2) < 0.51 * row_type((32, 12, 12), "fp16").itemsize
    assert row_type((197, 192), "int8").itemsize == 192 * (197 + 2)
    assert row_type((1280,), "int8") == row_type((1280,), "fp16")


def test_what_float16_cannot_hold_is_cut_off():
    for number_format in ("fp16", "fp32", "int8"):
        assert decode(encode(torch.full((1, 2, 2, 2), 1e9), number_format)).max() == pytest.approx(65504, rel=1e-3)
