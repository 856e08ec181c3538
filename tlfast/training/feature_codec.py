"""Number formats of cached features: tensors to rows of a file and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Rows = np.ndarray[Any, Any]  # [n] rows of `row_type`, or [n, ...] numbers

MAX_HALF = 65504.0  # float16
STEPS = 127  # int8 steps on either side of zero
MIN_HALF = 2.0**-24  # smallest float16 above zero


def row_type(shape: Sequence[int], number_format: str) -> np.dtype[Any]:
    """Return the type of a row that holds `[c, h, w]`, `[n, d]` or `[d]` in "fp16", "fp32" or "int8".

    With int8 each channel of an image has a float16 scale and int8 steps of it; `[d]` has one number per channel and stays float16.
    """
    if number_format == "int8" and len(shape) > 1:
        channels = shape[0] if len(shape) == 3 else shape[-1]
        return np.dtype([("scale", np.float16, (channels,)), ("steps", np.int8, tuple(shape))], align=True)  # torch requires aligned scales
    return np.dtype((np.float32 if number_format == "fp32" else np.float16, tuple(shape)))


def row_shape(rows: Rows) -> tuple[int, ...]:
    """Return the shape of the values of one row."""
    values: Rows = rows["steps"] if rows.dtype.names else rows
    return tuple(values.shape[1:])


def encode(values: torch.Tensor, number_format: str) -> Rows:
    """Encode `[b, ...]` as b rows. Values beyond the range of float16 are clipped.

    >>> decode(encode(torch.tensor([[1.0, 1e9]]), "fp16"))
    tensor([[1.0000e+00, 6.5504e+04]])
    """
    values = values.clamp(-MAX_HALF, MAX_HALF)
    kind = row_type(values.shape[1:], number_format)
    if not kind.names:
        return values.to("cpu", getattr(torch, kind.base.name)).contiguous().numpy()
    values = values.float()
    rows = np.zeros(len(values), kind)
    scale = (values.abs().amax(dim=_position_dims(values), keepdim=True) / STEPS).half().float()
    steps = (values / scale.clamp(min=MIN_HALF)).round().clamp(-STEPS, STEPS)
    rows["scale"], rows["steps"] = scale.flatten(1).cpu().numpy(), steps.to("cpu", torch.int8).contiguous().numpy()
    return rows


def to_tensors(rows: Rows) -> tuple[torch.Tensor, ...]:
    """Return b rows as tensors that share their memory: values `[b, ...]`, or int8 steps `[b, ...]` and scales `[b, c]`."""
    return tuple(map(torch.from_numpy, (rows["steps"], rows["scale"]) if rows.dtype.names else (rows,)))


def decode_tensors(values: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Decode the result of `to_tensors`, on any device, to `[b, ...]` float32."""
    if scale is None:
        return values.float()
    return values.float() * (scale[:, :, None, None] if values.dim() == 4 else scale[:, None]).float()


def decode(rows: Rows) -> torch.Tensor:
    """Decode b rows to `[b, ...]` float32."""
    return decode_tensors(*to_tensors(rows))


def _position_dims(values: torch.Tensor) -> tuple[int, ...]:
    """Return the dimensions other than batch and channel, of `[b, c, h, w]` or `[b, n, d]`."""
    return (2, 3) if values.dim() == 4 else (1,)
