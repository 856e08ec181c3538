from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlfast import tasks
from tlfast.core.errors import DataError
from tlfast.data import images, load_table, open_store
from tlfast.data.types import Preprocessing
from tlfast.tasks import resolve
from tlfast.testing import draw_image
from tlfast.training import loaders as loaders_module
from tlfast.training.loaders import augmented_loader, build_loaders, plain_loader, to_frame

CPU = torch.device("cpu")

ZERO_ONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture(params=["ram", "disk", "off"])
def loaders(request):
    """Make loaders of a folder, fed in each way that there is."""

    def made(root, **flags):
        task = tasks.folder_task(root)
        chosen = resolve.resolve_settings(task, None, {"size": 32, "bs": 8, "store": request.param, **flags})
        table, store = open_store(load_table(task, chosen, root), chosen)
        return build_loaders(table, Preprocessing.from_settings(chosen, ZERO_ONE), chosen, CPU, store), table, chosen

    return made


@pytest.mark.parametrize("resize", ["squish", "crop", "pad"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_judged_images_are_those_that_images_prepare_makes(folder, loaders, resize, crop_pct):
    dls, table, chosen = loaders(folder, resize=resize, crop_pct=crop_pct)
    x, y = next(iter(dls.valid))
    rows = table.part("valid")
    for pixels, label, row in zip(x, y, rows, strict=False):
        expected = images.prepare(images.open_image(row.path), chosen.size, chosen.full_size, resize)
        assert np.abs(pixels.permute(1, 2, 0).numpy() * 255 - expected).max() < 1e-3
        assert table.classes[label] == row.label


def test_normalisation_is_there_whatever_the_weights(folder):
    task = tasks.folder_task(folder)
    chosen = resolve.resolve_settings(task, None, {"size": 32, "bs": 8, "weights": "none"})
    dls = build_loaders(load_table(task, chosen, folder), Preprocessing.from_settings(chosen, ((0.5,) * 3, (0.25,) * 3)), chosen, CPU)
    x, _ = next(iter(dls.valid))
    assert x.min() < -1 and x.max() <= 2


def test_training_batches_are_full_augmented_and_shuffled(folder, loaders):
    dls, table, _ = loaders(folder)
    assert [len(y) for _, y in dls.train] == [8] * (len(table.part("train")) // 8)

    def images(loader):
        return [image.as_subclass(torch.Tensor).numpy().tobytes() for x, _ in loader for image in x]

    plain, (unchanged, _, _) = set(images(plain_loader(dls, table.part("train"), 8))), loaders(folder, augment="none")
    first, second = images(unchanged.train), images(unchanged.train)
    assert first != second and set(first) | set(second) <= plain and not set(images(dls.train)) <= plain


def test_a_process_without_a_valid_image_validates_none(folder, loaders):
    dls, _, _ = loaders(folder)
    dls.valid.get_idxs = list
    assert list(dls.valid) == []


def test_no_augmentation_leaves_images_alone(folder, loaders):
    dls, table, _ = loaders(folder, augment="none")
    plain = next(iter(plain_loader(dls, table.part("train"), 8)))
    assert torch.equal(next(iter(augmented_loader(dls, table.part("train"), 8)))[0], plain[0])


def test_augmented_views_keep_order_and_labels(folder, loaders):
    dls, table, _ = loaders(folder)
    labels = torch.cat([y for _, y in augmented_loader(dls, table.part("train"), 7)])
    assert [table.classes[i] for i in labels] == [row.label for row in table.part("train")]


def test_a_batch_larger_than_the_set(folder, loaders):
    dls, table, _ = loaders(folder, bs=512)
    assert [len(y) for _, y in dls.train] == [len(table.part("train"))]


def test_random_crop_only_in_training(tmp_path, loaders):
    for label in "ab":
        for i in range(6):
            draw_image(tmp_path / label / f"{i}.png", (250, 0, 0), i, size=(64, 64))
    dls, _, _ = loaders(tmp_path, crop_pct=0.5, augment="none", bs=4)
    assert torch.equal(next(iter(dls.valid))[0], next(iter(dls.valid))[0])
    crops = [next(iter(dls.train.new(shuffle=False)))[0] for _ in range(4)]
    assert any(not torch.equal(crops[0], other) for other in crops[1:])


@pytest.mark.parametrize(("flip", "allowed"), [("none", {"as is"}), ("horizontal", {"as is", "mirrored"})])
def test_flips_are_those_asked_for(tmp_path, loaders, flip, allowed):
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


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("resize", ["squish", "crop", "pad"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_the_store_gives_what_a_plain_data_block_gives(tmp_path, grey, resize, crop_pct):
    for label in "ab":
        for i in range(4):
            path = draw_image(tmp_path / label / f"{i}.png", (250, 0, 0), i, size=(64, 50))
            if grey:
                Image.open(path).convert("L").save(path)
    task, batches = tasks.folder_task(tmp_path), []
    for place in ("off", "ram", "disk"):
        chosen = resolve.resolve_settings(task, None, {"size": 32, "bs": 8, "store": place, "resize": resize, "crop_pct": crop_pct, "augment": "none"})
        table, store = open_store(load_table(task, chosen, tmp_path), chosen)
        assert store is None if place == "off" else store.pixels.shape[1] == (1 if grey else 3)
        batches.append(
            next(
                iter(
                    plain_loader(
                        build_loaders(table, Preprocessing.from_settings(chosen, ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))), chosen, CPU, store), table.rows, 8
                    )
                )
            )
        )
    for x, y in batches[1:]:
        assert x.shape == batches[0][0].shape == (8, 3, 32, 32)
        assert (x - batches[0][0]).abs().max() * 0.4 <= 1 / 255
        assert torch.equal(y, batches[0][1])


def test_what_fastai_shows_and_tests_works_from_a_store(folder, loaders):
    dls, table, _ = loaders(folder)
    shown = dls.train.show_batch(max_n=2, show=False)
    assert len(shown[2]) == 2 and shown[2][0][1] in table.classes
    unlabelled = dls.test_dl(to_frame(table.part("valid")), bs=3)
    assert [len(batch) for batch in unlabelled] == [1] * len(unlabelled)


@pytest.mark.parametrize("loaders", ["off"], indirect=True)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_is_named(folder, loaders, workers):
    dls, table, _ = loaders(folder, workers=workers)
    missing = Path(table.part("train")[0].path)
    missing.unlink()
    with pytest.raises(DataError) as caught:
        list(plain_loader(dls, table.part("train"), 8))
    assert caught.value.message.startswith(f"{missing} ") and "Traceback" not in caught.value.message
    assert caught.value.hint == "Restore the image; an interrupted training then continues with --resume"


@pytest.mark.parametrize(("room", "count"), [(float("inf"), 8), (1 << 30, 8), (64 << 20, 1), (16 << 20, 0)])
def test_loader_processes_have_room_for_their_batches(monkeypatch, room, count):
    monkeypatch.setattr(loaders_module, "count_cores", lambda: 8)
    monkeypatch.setattr(loaders_module, "free_shared_memory", lambda: room)
    chosen, gpu = resolve.resolve_settings(tasks.get_task("fer"), None, {"size": 224}), torch.device("cuda")
    assert loaders_module.count_workers(chosen, gpu) == count
    notes = loaders_module.describe_workers(chosen, gpu)
    assert [note.split(",")[0] for note in notes] == [f"{count} loader processes in place of 8"] * (count < 8)
    assert loaders_module.count_workers(resolve.resolve_settings(tasks.get_task("fer"), None, {"size": 224, "workers": 3}), gpu) == 3
