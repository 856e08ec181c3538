"""Augmentation: presets, their resolution to numbers, and fastai's batch transforms.

To add an augmentation, add its numbers to `Augmentation` with a default that switches it off, set them in `PRESETS` where it applies, and add its
transform to `build_transforms` (geometry, lighting) or to `build_augmentations` (others).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastai.vision.augment import Hue, RandomErasing, Saturation, aug_transforms

from ..core import AugmentationSettings
from .batch_augment import BatchAugmentation


@dataclass(frozen=True)
class Augmentation:
    """All numbers of an augmentation; the cache key of augmented features contains them.

    `rotate` is in degrees and `zoom` is a factor, both the largest; `lighting`, `warp`, `saturation` and `hue` are the largest relative changes;
    `erasing` and `colour_probability` (of a change of saturation, and of a change of hue) are probabilities; `erased_areas` is a largest count.
    """

    rotate: float
    zoom: float
    lighting: float
    warp: float
    saturation: float
    hue: float
    erasing: float = 0.0
    flip_horizontal: bool = True
    flip_vertical: bool = False
    colour_probability: float = 0.5
    erased_areas: int = 1


PRESETS = {
    "light": Augmentation(rotate=5.0, zoom=1.05, lighting=0.1, warp=0.0, saturation=0.1, hue=0.02),
    "standard": Augmentation(rotate=10.0, zoom=1.1, lighting=0.2, warp=0.1, saturation=0.2, hue=0.05),
    "strong": Augmentation(rotate=20.0, zoom=1.25, lighting=0.4, warp=0.2, saturation=0.4, hue=0.1, erasing=0.25),
}


def resolve_augmentation(settings: AugmentationSettings, grey: bool = False) -> Augmentation | None:
    """Return the numbers for the settings; None without augmentation. For grey images saturation and hue are 0."""
    if settings.augment == "none":
        return None
    preset = PRESETS[settings.augment]
    rotate = preset.rotate if settings.rotate is None else settings.rotate
    resolved = replace(preset, rotate=rotate, flip_horizontal=settings.flip != "none", flip_vertical=settings.flip == "both")
    return resolved if settings.colour and not grey else replace(resolved, saturation=0.0, hue=0.0)


def build_augmentations(settings: AugmentationSettings, grey: bool = False) -> list[Any]:
    """Return the batch transforms of the train split: geometry and colours in one, then erasing."""
    numbers = resolve_augmentation(settings, grey)
    if not numbers:
        return []
    erasing = [RandomErasing(p=numbers.erasing, max_count=numbers.erased_areas)] if numbers.erasing else []
    return [BatchAugmentation(build_transforms(numbers)), *erasing]


def build_transforms(numbers: Augmentation) -> list[Any]:
    """Return fastai's transforms for geometry, lighting, saturation and hue. They define the augmentation; `BatchAugmentation` applies them."""
    transforms: list[Any] = aug_transforms(
        do_flip=numbers.flip_horizontal,
        flip_vert=numbers.flip_vertical,
        max_rotate=numbers.rotate,
        max_zoom=numbers.zoom,
        max_lighting=numbers.lighting,
        max_warp=numbers.warp,
    )
    p = numbers.colour_probability
    transforms += [Saturation(max_lighting=numbers.saturation, p=p)] if numbers.saturation else []
    return transforms + ([Hue(max_hue=numbers.hue, p=p)] if numbers.hue else [])
