"""Augmentation presets, their numbers, and the cache key made of them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from fastai.vision.augment import Hue, Saturation

from tests.helpers.training import resolved
from tlfast import tasks
from tlfast.data.types import Preprocessing
from tlfast.tasks import resolve
from tlfast.training import features, trainer
from tlfast.training.augment import PRESETS, Augmentation, build_augmentations, build_transforms, resolve_augmentation


def test_presets_grow_and_follow_the_flags():
    task = tasks.get_task("weeds")

    def made(**flags):
        return build_augmentations(resolve.resolve_settings(task, None, flags))

    def kinds(grey=False, **flags):
        return {type(t) for t in build_transforms(resolve_augmentation(resolve.resolve_settings(task, None, flags), grey))}

    assert made(augment="none") == []
    assert len(made(augment="strong")) > len(made(augment="standard"))
    assert {Saturation, Hue} <= kinds(augment="standard")
    assert not {Saturation, Hue} & kinds(augment="standard", colour=False)
    assert not {Saturation, Hue} & kinds(augment="standard", grey=True)


@pytest.fixture
def extracted(pictures):
    """A session whose features are in the cache: one plain and two augmented views; `extracted()` counts the images missing from the cache by view."""
    task, chosen = resolved(pictures, "partial", views=3, augment="standard")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        features.extract(body, session, chosen)

        def missing(**changes):
            return features.count_missing(body, replace(session, **changes), chosen)

        missing.session = session
        yield missing


FROM_SETTINGS = ("flip_horizontal", "flip_vertical")  # not numbers of a preset


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation) if field.name not in FROM_SETTINGS])
def test_features_are_cached_by_the_numbers_of_the_preset(extracted, monkeypatch, name):
    assert extracted() == [0, 0, 0]
    former = PRESETS["standard"]
    monkeypatch.setitem(PRESETS, "standard", replace(former, **{name: getattr(former, name) + 0.01}))
    train = len(extracted.session.table.part("train"))
    assert extracted() == [0, train, train], "the plain view is not augmented"
    monkeypatch.setitem(PRESETS, "standard", former)
    monkeypatch.setitem(PRESETS, "strong", replace(PRESETS["strong"], **{name: 0.123}))
    assert extracted() == [0, 0, 0], "another preset is not used"


def test_a_preset_of_another_name_with_the_same_numbers_is_found(extracted, monkeypatch):
    monkeypatch.setitem(PRESETS, "strong", PRESETS["standard"])
    session = extracted.session
    settings = resolved(Path(session.table.source), "partial", views=3, augment="strong")[1]
    assert features.count_missing(session.learn.model[0], session, settings) == [0, 0, 0]


CHANGED = {"size": 31, "full_size": 33, "resize": "pad", "mean": (0.5, 0.5, 0.4), "std": (0.5, 0.4, 0.5)}


@pytest.mark.parametrize("name", [field.name for field in fields(Preprocessing)])
def test_features_are_cached_by_their_preprocessing(extracted, name):
    session = extracted.session
    counts = extracted(preprocessing=replace(session.preprocessing, **{name: CHANGED[name]}))
    assert counts == [len(session.table.rows), *[len(session.table.part("train"))] * 2]
