"""How what a frozen network makes of an image lies in a file: a row of numbers, in one of a few formats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

LARGEST = 65504.0  # of float16
STEPS = 127  # of int8 to either side of zero
LEAST = 2.0**-24  # of float16, above zero


def row_type(shape: Sequence[int], number_format: str) -> np.dtype:
    """Return the type of a row that holds `[c, h, w]`, `[n, d]` or `[d]`.

    With int8 each image's channel is so many steps of a scale of its own; `[d]` has one number a channel and stays float16.
    """
    if number_format == "int8" and len(shape) > 1:
        channels = shape[0] if len(shape) == 3 else shape[-1]
        return np.dtype([("scale", np.float16, (channels,)), ("steps", np.int8, tuple(shape))], align=True)  # or torch could not take the scales
    return np.dtype((np.float32 if number_format == "fp32" else np.float16, tuple(shape)))


def row_shape(rows: np.ndarray) -> tuple[int, ...]:
    """Return the shape of what each row holds."""
    return (rows["steps"] if rows.dtype.names else rows).shape[1:]


def encode(values: torch.Tensor, number_format: str) -> np.ndarray:
    """`[b, ...]` -> b rows, what float16 cannot hold cut off."""
    values = values.clamp(-LARGEST, LARGEST)
    kind = row_type(values.shape[1:], number_format)
    if not kind.names:
        return values.to("cpu", getattr(torch, kind.base.name)).contiguous().numpy()
    values = values.float()
    rows = np.zeros(len(values), kind)
    scale = (values.abs().amax(dim=_scale_channels(values), keepdim=True) / STEPS).half().float()
    steps = (values / scale.clamp(min=LEAST)).round().clamp(-STEPS, STEPS)
    rows["scale"], rows["steps"] = scale.flatten(1).cpu().numpy(), steps.to("cpu", torch.int8).contiguous().numpy()
    return rows


def decode(rows: np.ndarray) -> torch.Tensor:
    """b rows -> `[b, ...]` float32."""
    if not rows.dtype.names:
        return torch.from_numpy(rows).float()
    steps = torch.from_numpy(rows["steps"]).float()
    scale = torch.from_numpy(rows["scale"]).float()
    return steps * (scale[:, :, None, None] if steps.dim() == 4 else scale[:, None])


def _scale_channels(values: torch.Tensor) -> tuple[int, ...]:
    return (2, 3) if values.dim() == 4 else (1,)
