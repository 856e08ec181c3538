from __future__ import annotations

import numpy as np
import pytest
import torch
from fastai.vision.augment import Hue, Saturation
from PIL import Image

from tests.conftest import draw
from tlfast import images, settings, tasks
from tlfast.data import load_table
from tlfast.data.loaders import TensorLoader, augmentations, augmented_loader, build_loaders, plain_loader

CPU = torch.device("cpu")
ZERO_ONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def loaders(root, **flags):
    task = tasks.folder_task(root)
    chosen = settings.resolve(task, None, {"size": 32, "bs": 8, **flags})
    table = load_table(task, chosen, root)
    return build_loaders(table, chosen, ZERO_ONE, CPU), table, chosen


@pytest.mark.parametrize("resize", ["squish", "crop", "pad"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_judged_images_are_those_that_images_prepare_makes(folder, resize, crop_pct):
    dls, table, chosen = loaders(folder, resize=resize, crop_pct=crop_pct)
    x, y = next(iter(dls.valid))
    rows = table.part("valid")
    for pixels, label, row in zip(x, y, rows, strict=False):
        expected = images.prepare(images.open_image(row.path), chosen.size, chosen.full_size, resize)
        assert np.abs(pixels.permute(1, 2, 0).numpy() * 255 - expected).max() < 1e-3
        assert table.classes[label] == row.label


def test_normalisation_is_there_whatever_the_weights(folder):
    task = tasks.folder_task(folder)
    chosen = settings.resolve(task, None, {"size": 32, "bs": 8, "weights": "none"})
    dls = build_loaders(load_table(task, chosen, folder), chosen, ((0.5,) * 3, (0.25,) * 3), CPU)
    x, _ = next(iter(dls.valid))
    assert x.min() < -1 and x.max() <= 2


def test_training_batches_are_full_augmented_and_shuffled(folder):
    dls, table, _ = loaders(folder)
    first, second = ([(x, y) for x, y in dls.train] for _ in range(2))
    assert [len(y) for _, y in first] == [8] * (len(table.part("train")) // 8)
    assert not torch.equal(first[0][1], second[0][1]) or not torch.equal(first[0][0], second[0][0])


def test_no_augmentation_leaves_images_alone(folder):
    dls, table, _ = loaders(folder, augment="none")
    plain = next(iter(plain_loader(dls, table.part("train"), 8)))
    assert torch.equal(next(iter(augmented_loader(dls, 8)))[0], plain[0])


def test_augmented_views_keep_order_and_labels(folder):
    dls, table, _ = loaders(folder)
    labels = torch.cat([y for _, y in augmented_loader(dls, 7)])
    assert [table.classes[i] for i in labels] == [row.label for row in table.part("train")]


def test_a_batch_larger_than_the_set(folder):
    dls, table, _ = loaders(folder, bs=512)
    assert [len(y) for _, y in dls.train] == [len(table.part("train"))]


def test_random_crop_only_in_training(tmp_path):
    for label in "ab":
        for i in range(6):
            draw(tmp_path / label / f"{i}.png", (250, 0, 0), i, size=(64, 64))
    dls, _, _ = loaders(tmp_path, crop_pct=0.5, augment="none", bs=4)
    assert torch.equal(next(iter(dls.valid))[0], next(iter(dls.valid))[0])
    crops = [next(iter(dls.train.new(shuffle=False)))[0] for _ in range(4)]
    assert any(not torch.equal(crops[0], other) for other in crops[1:])


def test_presets_grow_and_follow_the_flags():
    task = tasks.named("weeds")

    def made(**flags):
        return augmentations(settings.resolve(task, None, flags))

    assert made(augment="none") == []
    assert len(made(augment="strong")) > len(made(augment="standard"))
    kinds = {type(t) for t in made(augment="standard")}
    assert {Saturation, Hue} <= kinds
    assert not {Saturation, Hue} & {type(t) for t in made(augment="standard", colour=False)}


@pytest.mark.parametrize(("flip", "allowed"), [("none", {"as is"}), ("horizontal", {"as is", "mirrored"})])
def test_flips_are_those_asked_for(tmp_path, flip, allowed):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16, :16] = 255  # upper left
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(20):
            Image.fromarray(picture).save(tmp_path / label / f"{i}.png")
    dls, _, _ = loaders(tmp_path, flip=flip, rotate=0, augment="light", bs=16)
    seen = set()
    for _ in range(3):
        for x, _ in dls.train:
            for pixels in x:
                corners = {"as is": (0, 0), "mirrored": (0, -1), "upside down": (-1, 0), "both": (-1, -1)}
                seen.add(max(corners, key=lambda name: pixels[0][corners[name]]))
    assert seen == allowed


def test_tensor_loader_takes_whole_batches():
    features, labels = torch.arange(10).float().half()[:, None], torch.arange(10)
    shuffled = list(TensorLoader(features, labels, 4, True, CPU))
    assert [len(y) for _, y in shuffled] == [4, 4]
    assert all(torch.equal(x[:, 0].long(), y.as_subclass(torch.Tensor)) for x, y in shuffled)
    assert torch.cat([y for _, y in TensorLoader(features, labels, 4, False, CPU)]).tolist() == list(range(10))
