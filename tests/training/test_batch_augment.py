"""The augmentation of a batch in one pass, beside fastai's transforms one after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fastai.torch_core import TensorImage, set_seed
from fastai.vision.augment import Brightness, Contrast, Dihedral, Flip, Hue, RandomErasing, Rotate, Saturation, Warp, Zoom, setup_aug_tfms
from fasttransform import Pipeline

from tlfast.training.augment import PRESETS, build_transforms
from tlfast.training.batch_augment import BatchAugmentation

SIZE = 48


def apply_both(transforms, x, seed=3):
    """Return the results of fastai's transforms and of the batch augmentation for the same seed. `transforms()` makes fastai's."""
    results, states = [], []
    for chosen in (transforms(), [BatchAugmentation(transforms())]):
        set_seed(seed)
        results.append(Pipeline(chosen, split_idx=0)(TensorImage(x.clone())).as_subclass(torch.Tensor))
        states.append(torch.get_rng_state())
    assert torch.equal(*states), "other random numbers were drawn"
    return results


def noise(count=64, channels=3):
    return torch.rand(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("both_flips", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_equals_its_fastai_transforms(preset, channels, both_flips):
    numbers = replace(PRESETS[preset], flip_vertical=both_flips)
    if channels == 1:
        numbers = replace(numbers, saturation=0.0, hue=0.0)
    x = noise(channels=channels)
    fastai, ours = apply_both(lambda: build_transforms(numbers), x)
    assert (fastai - x).abs().mean() > 0.05, "nothing was changed"
    assert (fastai - ours).abs().max() < 1e-4


# Each transform alone, at its extremes and at values with a known result.
DRAWN = {
    "flip": (lambda: [Flip(p=1.0)], 1e-4),
    "eight symmetries": (lambda: [Dihedral(p=1.0, draw=[0, 1, 2, 3, 4, 5, 6, 7])], 1e-4),
    "quarter turns": (lambda: [Rotate(draw=[-180.0, -90.0, -45.0, 0.0, 45.0, 90.0, 135.0, 180.0], p=1.0)], 1e-4),
    "zoom": (lambda: [Zoom(draw=[0.5, 0.8, 1.0, 1.1, 1.5, 2.0, 3.0, 4.0], draw_x=0.3, draw_y=0.9, p=1.0)], 1e-4),
    "perspective": (
        lambda: [Warp(draw_x=[-0.4, -0.2, 0.0, 0.2, 0.4, 0.1, 0.0, 0.3], draw_y=[0.4, 0.0, 0.0, -0.2, 0.4, 0.1, 0.2, 0.0], p=1.0)],
        1e-4,
    ),
    "geometry together": (lambda: setup_aug_tfms([Flip(p=1.0), Warp(draw_x=0.3, draw_y=-0.2, p=1.0), Rotate(draw=30.0, p=1.0), Zoom(draw=1.4, p=1.0)]), 1e-4),
    "lighting": (lambda: setup_aug_tfms([Brightness(draw=[0.1, 0.3, 0.5, 0.5, 0.7, 0.9, 0.4, 0.6], p=1.0), Contrast(draw=[0.5, 2.0] * 4, p=1.0)]), 1e-4),
    "saturation": (lambda: [Saturation(draw=[0.0, 0.5, 1.0, 1.5, 2.0, 0.9, 1.1, 3.0], p=1.0)], 1e-4),
    "hue": (lambda: [Hue(draw=[0.0, 0.1, 1 / 3, 0.5, 2 / 3, 0.95, 1.0, 1.05], p=1.0)], 1e-4),
}


@pytest.mark.parametrize("name", DRAWN)
def test_each_transform_equals_fastai_at_its_extremes(name):
    transforms, tolerance = DRAWN[name]
    fastai, ours = apply_both(transforms, noise(8))
    assert (fastai - ours).abs().max() < tolerance


def test_symmetries_move_pixels_and_change_none():
    x = noise(8)
    _, ours = apply_both(DRAWN["eight symmetries"][0], x)
    for result, original in zip(ours, x, strict=True):
        symmetries = [turned for k in range(4) for turned in (original.rot90(k, (1, 2)), original.flip(2).rot90(k, (1, 2)))]
        assert min((result - turned).abs().max() for turned in symmetries) < 1e-4
    assert len({tuple(result[0, 0].tolist()) for result in ours}) == 8


def test_pure_colours_keep_their_range():
    colours = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    x = colours[:, :, None, None].repeat(8, 1, SIZE, SIZE)
    fastai, ours = apply_both(lambda: build_transforms(PRESETS["strong"]), x)
    assert ours.min() >= 0 and ours.max() <= 1 and (fastai - ours).abs().max() < 2e-3


def test_turned_hue_of_red_is_green():
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    _, ours = apply_both(lambda: [Hue(draw=[1 / 3], p=1.0)], red)
    assert torch.allclose(ours[0, :, 0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)


def test_other_splits_are_left_alone():
    x = TensorImage(noise(4))
    assert torch.equal(Pipeline([BatchAugmentation(build_transforms(PRESETS["strong"]))], split_idx=1)(x), x)


@pytest.mark.parametrize("transforms", [[RandomErasing()], [Flip(), Rotate()], [Hue(), Hue()]], ids=str)
def test_transforms_that_it_would_not_apply_are_refused(transforms):
    with pytest.raises(TypeError, match="cannot be applied as one"):
        BatchAugmentation(transforms)


def test_the_distribution_of_flips():
    marked = torch.zeros(4096, 1, 8, 8)
    marked[:, :, 0, 0] = 1
    set_seed(0)
    numbers = replace(PRESETS["light"], rotate=0.0, zoom=1.0, lighting=0.0, saturation=0.0, hue=0.0, flip_vertical=True)
    result = Pipeline([BatchAugmentation(build_transforms(numbers))], split_idx=0)(TensorImage(marked))
    corners = torch.stack([result[:, 0, 0, 0], result[:, 0, 0, -1], result[:, 0, -1, 0], result[:, 0, -1, -1]]).mean(dim=1)
    # with probability 1/2 one of eight symmetries, two of which keep this corner: 1/2 + 1/8, and 1/8 for each other corner
    assert torch.allclose(corners, torch.tensor([0.625, 0.125, 0.125, 0.125]), atol=0.03)
