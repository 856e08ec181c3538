"""fastai's augmentation of a batch as one map of coordinates and one map of colours per image.

fastai applies its transforms one after the other, in many small operations. Some of them make the host wait for a GPU; see docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fastai.torch_core import TensorImage
from fastai.vision.augment import AffineCoordTfm, Hue, LightingTfm, RandTransform, find_coeffs
from torch.nn.functional import grid_sample

from ..models import copy_to_device

EPS = 1e-7  # pixels are clamped to [EPS, 1 - EPS] before the logit, as in fastai


@dataclass(frozen=True)
class Maps:
    """The maps of b images with k channels; None where no transform changes an image.

    `coordinates` `[b, 3, 3]` maps homogeneous coordinates of the result, from -1 to 1, to those of the image. `colours` `[b, k, k + 1]` holds an
    offset and a matrix for the logits of a pixel's channels. `hues` `[b]` are added to the hue, in turns of the colour circle.
    """

    coordinates: torch.Tensor | None
    colours: torch.Tensor | None
    hues: torch.Tensor | None


class BatchAugmentation(RandTransform):
    """Apply fastai's `AffineCoordTfm`, `LightingTfm` and `Hue` transforms to training images `[b, k, h, w]` in [0, 1].

    The transforms draw their random numbers themselves, on the CPU, so that a seed gives the same numbers on every device. The result equals that
    of the transforms to rounding, for images that keep their size. There may be one transform of geometry and one of hue: `setup_aug_tfms` combines
    those of geometry. Raises TypeError for other transforms.
    """

    split_idx, order = 0, 30  # the train split; the order of fastai's geometric transforms

    def __init__(self, transforms: Sequence[RandTransform]) -> None:
        super().__init__()
        self.geometry = [t for t in transforms if isinstance(t, AffineCoordTfm)]
        self.lighting = [t for t in transforms if isinstance(t, LightingTfm)]
        self.hues = [t for t in transforms if isinstance(t, Hue)]
        if len(self.geometry) > 1 or len(self.hues) > 1 or len(self.geometry + self.lighting + self.hues) < len(transforms):
            raise TypeError(f"these transforms cannot be applied as one: {list(transforms)}")

    def before_call(self, b: Any, split_idx: int) -> None:
        x = b[0] if isinstance(b, tuple) else b
        self.do, self.maps = True, self.draw(len(x), x.shape[1])

    def encodes(self, x: TensorImage) -> TensorImage:
        return TensorImage(apply_maps(x.as_subclass(torch.Tensor), self.maps))

    def draw(self, count: int, channels: int) -> Maps:
        """Draw the maps of `count` images with `channels` channels, in main memory."""
        images = torch.empty(count, channels, 1, 1)
        for transform in [*self.geometry, *self.lighting, *self.hues]:
            transform.before_call(images, 0)
        coordinates = _coordinate_map(self.geometry[0]) if self.geometry else None
        colours = _colour_map(self.lighting, count, channels) if self.lighting else None
        return Maps(coordinates, colours, _plain(self.hues[0].fs[0].change) if self.hues else None)


def apply_maps(x: torch.Tensor, maps: Maps) -> torch.Tensor:
    """Apply maps to images `[b, k, h, w]` in [0, 1]."""
    maps = _move(maps, x.device)
    if maps.coordinates is not None:
        x = _resample(x, maps.coordinates)
    if maps.colours is not None:
        x = _change_colours(x, maps.colours)
    return x if maps.hues is None else _shift_hues(x, maps.hues)


def _coordinate_map(transform: AffineCoordTfm) -> torch.Tensor:
    """Return the map `[b, 3, 3]` that a transform has drawn: affine, then a change of perspective."""
    affine = _plain(transform.mat)
    coordinates = torch.cat([affine, affine.new_tensor([0.0, 0.0, 1.0]).expand(len(affine), 1, 3)], dim=1)
    for warp in transform.coord_fs:
        coefficients = _plain(find_coeffs(warp.orig_pts, warp.targ_pts)).flatten(1)
        coordinates = torch.cat([coefficients, torch.ones(len(affine), 1)], dim=1).view(-1, 3, 3) @ coordinates
    return coordinates


def _colour_map(transforms: Sequence[LightingTfm], count: int, channels: int) -> torch.Tensor:
    """Return the map `[b, k, k + 1]` of transforms that are affine in the logits, from their effect on black and on each unit colour."""
    colours = torch.cat([torch.zeros(channels, 1), torch.eye(channels)], dim=1)
    changed = colours.repeat(count, 1, 1).unsqueeze(2)  # images of one row
    for change in (change for transform in transforms for change in transform.fs):
        changed = change(changed)
    changed = _plain(changed).squeeze(2)
    return torch.cat([changed[..., :1], changed[..., 1:] - changed[..., :1]], dim=2)


def _move(maps: Maps, device: torch.device) -> Maps:
    """Copy maps to a device, in one piece."""
    present = {name: values for name, values in vars(maps).items() if values is not None}
    if device.type == "cpu" or not present:
        return maps
    numbers = copy_to_device(torch.cat([values.flatten(1) if values.ndim > 1 else values[:, None] for values in present.values()], dim=1), device)
    parts = numbers.split([values[0].numel() for values in present.values()], dim=1)
    moved = {name: part.reshape(values.shape) for (name, values), part in zip(present.items(), parts, strict=True)}
    return Maps(**{**vars(maps), **moved})


def _resample(x: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=x.device)
    columns = torch.linspace(-1, 1, width, device=x.device)
    plane = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width), torch.ones_like(columns).expand(height, width)], dim=2)
    places = plane.view(-1, 3) @ coordinates.transpose(1, 2)
    grid = (places[..., :2] / places[..., 2:]).view(len(x), height, width, 2)
    return grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=True)


def _change_colours(x: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    logits = torch.logit(x, EPS).flatten(2)
    return torch.baddbmm(colours[..., :1], colours[..., 1:], logits).sigmoid_().view(x.shape)


def _shift_hues(x: torch.Tensor, hues: torch.Tensor) -> torch.Tensor:
    """Add to the hue of RGB images, which keep saturation and value (Smith 1978, doi 10.1145/965139.807361)."""
    red, green, blue = x.unbind(1)
    value, least = x.amax(1), x.amin(1)
    chroma = value - least
    scale = torch.where(chroma == 0, 1.0, chroma).reciprocal_()
    hue = torch.where(value == red, (green - blue) * scale, torch.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale))
    sectors = hue.unsqueeze(1) + (6 * hues).view(-1, 1, 1, 1) + (5 - 2 * torch.arange(3, device=x.device)).view(1, 3, 1, 1)
    sectors = sectors.remainder_(6)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(sectors, 4 - sectors).clamp_(0, 1)


def _plain(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor without fastai's subclass, whose operations all call Python functions."""
    return x.as_subclass(torch.Tensor)
