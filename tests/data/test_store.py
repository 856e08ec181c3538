"""The store: what it keeps, when it makes it anew, and how wide."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlfast import tasks
from tlfast.core import cache
from tlfast.core.errors import DataError
from tlfast.core.system import release_pages
from tlfast.data import images, load_table, open_store, store
from tlfast.tasks import resolve
from tlfast.testing import draw_image


def opened(root, events=None, **flags):
    task = tasks.folder_task(root)
    chosen = resolve.resolve_settings(task, None, {"size": 24, **flags})
    return open_store(load_table(task, chosen, root), chosen, *([events.append] if events is not None else []))


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_pixels_are_those_of_the_images(folder, place):
    table, kept = opened(folder, store=place)
    assert kept.pixels.dtype == np.uint8 and kept.pixels.shape == (36, 3, 24, 24) and kept.cached == (place == "disk")
    for row in table.rows:
        expected = np.asarray(images.resize(images.open_image(row.path), 24, "squish"))
        assert np.array_equal(kept.pixels[kept.index[row.path]].transpose(1, 2, 0), expected)


def test_it_is_made_once_and_shared_by_folds(folder):
    first, second = [], []
    _, made = opened(folder, first, fold=0)
    _, found = opened(folder, second, fold=3)
    assert {event.phase for event in first} == {"storing images"} and not second
    assert made.key == found.key and np.array_equal(made.pixels, found.pixels)


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_other_images_make_another_store(folder, change):
    key = opened(folder)[1].key
    if change == "removed":
        (folder / "red" / "0.png").unlink()
    else:
        draw_image(folder / "red" / ("0.png" if change == "changed" else "new.png"), (0, 0, 0), 99)
    events = []
    _, kept = opened(folder, events)
    assert events and kept.key != key


def test_a_damaged_store_is_made_again(folder, cache_folder):
    pixels = opened(folder)[1].pixels.copy()
    file = next(cache_folder.rglob(store.PIXELS))
    file.write_bytes(file.read_bytes()[:-1])
    events = []
    assert np.array_equal(opened(folder, events)[1].pixels, pixels) and events


def test_other_geometry_makes_another_store(folder):
    keys = {opened(folder, **flags)[1].key for flags in ({}, {"size": 32}, {"resize": "pad"}, {"crop_pct": 0.5})}
    assert len(keys) == 4


@pytest.mark.parametrize("place", ["ram", "disk"])
@pytest.mark.parametrize("coloured", [0, 3, 5])
def test_grey_is_kept_in_one_channel_until_a_colour_comes(tmp_path, place, coloured):
    """The images are stored in the order of their paths: the first, a middle and the last one has colour."""
    for i in range(6):
        path = draw_image(tmp_path / "ab"[i // 3] / f"{i}.png", (250, 0, 0), i)
        if i != coloured:
            Image.open(path).convert("L").save(path)
    table, kept = opened(tmp_path, store=place)
    assert not kept.grey
    for row in table.rows:
        expected = np.asarray(images.resize(images.open_image(row.path), 24, "squish"))
        assert np.array_equal(kept.pixels[kept.index[row.path]].transpose(1, 2, 0), expected)


def test_unreadable_images_are_named_the_second_time_too(tmp_path):
    for i in range(30):
        draw_image(tmp_path / "ab"[i % 2] / f"{i:02}.png", (250, 0, 0), i)
    (tmp_path / "a" / "00.png").write_bytes(b"no image")
    for _ in range(2):
        table, kept = opened(tmp_path)
        assert [(bad.path, bad.reason) for bad in table.unreadable] == [(str(tmp_path / "a" / "00.png"), "not an image that can be read")]
        assert len(kept.pixels) == len(table.rows) == 29
    for i in range(2, 8, 2):
        (tmp_path / "a" / f"{i:02}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="4 of 30 images cannot be read"):
        opened(tmp_path)


def test_auto_takes_the_first_place_with_room(monkeypatch, cache_folder):
    room = {"disk": 5.0, "ram": 9.5}
    monkeypatch.setattr(store, "free_disk_gib", lambda folder: room["disk"])
    monkeypatch.setattr(store, "free_memory_gib", lambda: room["ram"])
    assert [store.choose_location("auto", gib << 30) for gib in (3, 4, 5)] == ["disk", "ram", "off"]
    assert store.choose_location("disk", 1 << 40) == "disk" and store.choose_location("off", 1) == "off"
    room["ram"] = None
    assert store.choose_location("auto", 4 << 30) == "off"


def test_a_store_in_the_cache_is_used_without_room_for_another(folder, monkeypatch):
    made = opened(folder, store="auto")[1]
    monkeypatch.setattr(store, "free_disk_gib", lambda place: 0.0)
    found = opened(folder, store="auto")[1]
    assert found.cached and found.key == made.key


def test_a_cache_that_cannot_be_written_is_an_error_or_another_place(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "file"))
    assert not opened(folder)[1].cached
    with pytest.raises(DataError) as error:
        opened(folder, store="disk")
    assert "TLFAST_CACHE" in error.value.hint and "--store ram" in error.value.hint


def test_a_store_in_a_cache_that_cannot_be_written_is_used(folder, cache_folder, monkeypatch):
    made = opened(folder)[1]
    (cache_folder / "features").mkdir()
    access = store.os.access
    monkeypatch.setattr(store.os, "access", lambda path, mode: path != cache_folder / "features" and access(path, mode))  # of another user
    found = opened(folder)[1]
    assert made.writable and found.cached and not found.writable and found.key == made.key
    assert opened(folder, store="disk")[1].writable  # as demanded: an error names what cannot be written


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_let_go_are_read_again(tmp_path):
    (tmp_path / "pixels").write_bytes(bytes(range(256)) * 64)
    for mode in "cr":
        array = np.memmap(tmp_path / "pixels", np.uint8, mode)
        view, before = array.reshape(64, 256), array.sum()
        assert mapped(array) > 0
        release_pages(view)
        assert mapped(array) == 0 and array.sum() == before
    release_pages(np.zeros(3))


def mapped(array) -> int:
    """KiB of a memory-mapped file that are mapped just now."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(int(next(row for row in lines if row.startswith("Rss:")).split()[1]) for line in lines if line.endswith(str(array.filename)))


def test_nothing_half_made_is_found(cache_folder):
    with pytest.raises(RuntimeError), cache.write_entry("stores", "x") as (folder, _):
        (folder / "pixels.u8").write_bytes(b"1")
        raise RuntimeError
    assert cache.find("stores", "x") is None and not list((cache_folder / "stores").iterdir())


def test_missing_files_are_named_like_other_unreadable_ones(tmp_path):
    for i in range(40):
        draw_image(tmp_path / "ab"[i % 2] / f"{i:02}.png", (250, 0, 0), i)
    lines = [f"{'ab'[i % 2]}/{i:02}.png,{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "images.csv").write_text("\n".join(["path,label", *lines, "a/none.png,a"]))
    table, kept = opened(tmp_path / "images.csv")
    assert [(bad.path, bad.reason) for bad in table.unreadable] == [(str(tmp_path / "a" / "none.png"), "cannot be read (No such file or directory)")]
    assert len(kept.pixels) == 40


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_no_readable_image_at_all_is_said(tmp_path, place):
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="6 of 6 images cannot be read"):
        opened(tmp_path, store=place)


@pytest.mark.parametrize("place", ["ram", "disk"])
def test_hashes_are_kept_with_the_pixels(tmp_path, place):
    for i, colour in enumerate([(9, 9, 9), (9, 9, 9), (7, 7, 7), (250, 0, 0), (250, 0, 0), (0, 250, 0)]):  # grey images are widened at the first colour
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (30, 30), colour).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    _, kept = opened(tmp_path, store=place)
    _, kept = opened(tmp_path, store=place)

    def alike(found):
        return [[Path(other).stem for other in found if found[other] == digest] for digest in found.values()]

    hashes = store.image_digests(replace(kept, pixels=kept.pixels[:0]))
    assert alike(hashes) == alike(store.image_digests(replace(kept, digests="")))
    assert sorted(map(len, alike(hashes))) == [1, 1, 2, 2, 2, 2]
