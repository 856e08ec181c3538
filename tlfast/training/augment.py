"""Augmentation: presets, their resolution to numbers, and fastai's batch transforms.

To add an augmentation, add its numbers to `Augmentation` and to each preset, and its transform to `build_augmentations`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fastai.vision.augment import Hue, RandomErasing, Saturation, aug_transforms

from ..core.settings import AugmentationSettings


@dataclass(frozen=True)
class Augmentation:
    """All numbers of the augmentation of a training; the cache key of augmented features is made from them.

    `rotate` is in degrees, `zoom` a factor, `lighting`, `warp`, `saturation` and `hue` largest changes; `erasing` is a probability.
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


PRESETS = {
    "light": Augmentation(rotate=5.0, zoom=1.05, lighting=0.1, warp=0.0, saturation=0.1, hue=0.02),
    "standard": Augmentation(rotate=10.0, zoom=1.1, lighting=0.2, warp=0.1, saturation=0.2, hue=0.05),
    "strong": Augmentation(rotate=20.0, zoom=1.25, lighting=0.4, warp=0.2, saturation=0.4, hue=0.1, erasing=0.25),
}
COLOUR_PROBABILITY = 0.5  # of changing saturation, and of changing hue


def resolve_augmentation(settings: AugmentationSettings, grey: bool = False) -> Augmentation | None:
    """Return the numbers that the settings stand for; None for no augmentation. Grey images have neither saturation nor hue."""
    if settings.augment == "none":
        return None
    preset = PRESETS[settings.augment]
    rotate = preset.rotate if settings.rotate is None else settings.rotate
    chosen = replace(preset, rotate=rotate, flip_horizontal=settings.flip != "none", flip_vertical=settings.flip == "both")
    return chosen if settings.colour and not grey else replace(chosen, saturation=0.0, hue=0.0)


def build_augmentations(settings: AugmentationSettings, grey: bool = False) -> list[Any]:
    """Return fastai's batch transforms: geometry and light in one pass, then colour and erasing."""
    chosen = resolve_augmentation(settings, grey)
    if not chosen:
        return []
    transforms = aug_transforms(
        do_flip=chosen.flip_horizontal,
        flip_vert=chosen.flip_vertical,
        max_rotate=chosen.rotate,
        max_zoom=chosen.zoom,
        max_lighting=chosen.lighting,
        max_warp=chosen.warp,
    )
    if chosen.saturation:
        transforms += [Saturation(max_lighting=chosen.saturation, p=COLOUR_PROBABILITY), Hue(max_hue=chosen.hue, p=COLOUR_PROBABILITY)]
    return transforms + ([RandomErasing(p=chosen.erasing, max_count=1)] if chosen.erasing else [])
