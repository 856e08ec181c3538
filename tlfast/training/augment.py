"""Augmentation presets and fastai's batch transforms."""

from __future__ import annotations

from fastai.vision.augment import Hue, RandomErasing, Saturation, aug_transforms

from ..core.settings import Settings

# How far each preset goes: aug_transforms' own arguments, then the ranges of saturation and hue.
AUGMENT_PRESETS = {
    "light": {"max_rotate": 5.0, "max_zoom": 1.05, "max_lighting": 0.1, "max_warp": 0.0},
    "standard": {"max_rotate": 10.0, "max_zoom": 1.1, "max_lighting": 0.2, "max_warp": 0.1},
    "strong": {"max_rotate": 20.0, "max_zoom": 1.25, "max_lighting": 0.4, "max_warp": 0.2},
}
COLOUR_PRESETS = {"light": (0.1, 0.02), "standard": (0.2, 0.05), "strong": (0.4, 0.1)}


def build_augmentations(settings: Settings, grey: bool = False) -> list:
    """Return fastai's batch transforms for the settings: geometry and light in one pass, then colour (grey images have none) and erasing."""
    if settings.augment == "none":
        return []
    preset = AUGMENT_PRESETS[settings.augment]
    rotate = preset["max_rotate"] if settings.rotate is None else settings.rotate
    transforms = aug_transforms(do_flip=settings.flip != "none", flip_vert=settings.flip == "both", **{**preset, "max_rotate": rotate})
    if settings.colour and not grey:
        saturation, hue = COLOUR_PRESETS[settings.augment]
        transforms += [Saturation(max_lighting=saturation, p=0.5), Hue(max_hue=hue, p=0.5)]
    return transforms + ([RandomErasing(p=0.25, max_count=1)] if settings.augment == "strong" else [])
