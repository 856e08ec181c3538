"""Augmentation presets, their numbers, and the cache key made of them."""

from __future__ import annotations

from fastai.vision.augment import Hue, Saturation

from tlfast import tasks
from tlfast.tasks import resolve
from tlfast.training.augment import build_augmentations


def test_presets_grow_and_follow_the_flags():
    task = tasks.get_task("weeds")

    def made(**flags):
        return build_augmentations(resolve.resolve_settings(task, None, flags))

    assert made(augment="none") == []
    assert len(made(augment="strong")) > len(made(augment="standard"))
    kinds = {type(t) for t in made(augment="standard")}
    assert {Saturation, Hue} <= kinds
    assert not {Saturation, Hue} & {type(t) for t in made(augment="standard", colour=False)}
    assert not {Saturation, Hue} & {type(t) for t in build_augmentations(resolve.resolve_settings(task, None, {"augment": "standard"}), grey=True)}
