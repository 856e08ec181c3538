"""The table of docs/reference/image-formats.md: each line is drawn, read, and stored for training."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.core import ImageError
from tlfast.data import images, load_table, open_store
from tlfast.inference.classifier import open_pixels
from tlfast.tasks import resolve
from tlfast.testing import draw_image

RED, GREEN, WHITE, BLACK = (220, 30, 40), (20, 200, 60), (255, 255, 255), (0, 0, 0)
SIZE = (32, 24)
Corners = tuple[tuple[int, int, int], tuple[int, int, int]]  # colours of the top left and bottom right corners


def halves(left=RED, right=GREEN, size=SIZE, mode="RGB"):
    """Return an image of two colours, side by side."""
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def array(left, right, dtype):
    values = np.full((SIZE[1], SIZE[0]), right, dtype)
    values[:, : SIZE[0] // 2] = left
    return Image.fromarray(values)


def grey(value):
    return (value, value, value)


def draw_palette(path):
    halves().quantize(4).save(path.with_suffix(".gif"))


def draw_transparent_palette(path):
    image = halves().quantize(2)
    image.save(path.with_suffix(".png"), transparency=image.getpixel((SIZE[0] - 1, 0)))


def draw_adobe(path):
    cmyk = halves().convert("CMYK")  # Pillow writes Adobe's marker and inverted values
    cmyk.save(path.with_suffix(".jpg"), quality=100, subsampling=0)
    assert b"Adobe" in path.with_suffix(".jpg").read_bytes()


def draw_rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    halves(GREEN, RED).save(path.with_suffix(".png"), exif=exif)


def draw_lab(path):
    lab = Image.new("LAB", SIZE, (255, 128, 128))  # white
    lab.paste((0, 128, 128), (0, 0, SIZE[0] // 2, SIZE[1]))
    lab.save(path.with_suffix(".tif"))


CASES: dict[str, tuple[Callable[[Path], object], Corners]] = {
    "grey": (lambda path: halves(90, 200, mode="L").save(path.with_suffix(".png")), (grey(90), grey(200))),
    "black and white, 1 bit": (lambda path: halves(0, 1, mode="1").save(path.with_suffix(".png")), (BLACK, WHITE)),
    "palette": (draw_palette, (RED, GREEN)),
    "palette with transparency": (draw_transparent_palette, (RED, WHITE)),
    "alpha channel": (lambda path: halves((*RED, 255), (0, 0, 0, 51), mode="RGBA").save(path.with_suffix(".webp"), lossless=True), (RED, grey(204))),
    "CMYK JPEG of Adobe programs": (draw_adobe, (RED, GREEN)),
    "LAB TIFF": (draw_lab, (BLACK, WHITE)),
    "16 bits, grey": (lambda path: array(0, 32896, np.uint16).save(path.with_suffix(".png")), (BLACK, grey(128))),
    "12 bits in 16, grey": (lambda path: array(0, 4095, np.uint16).save(path.with_suffix(".tif")), (BLACK, grey(16))),
    "32-bit integers, grey": (lambda path: array(7, 200, np.int32).save(path.with_suffix(".tif")), (grey(7), grey(200))),
    "floating point, grey": (lambda path: array(0.2, 1.0, np.float32).save(path.with_suffix(".tif")), (grey(51), WHITE)),
    "animation": (lambda path: halves().save(path.with_suffix(".webp"), save_all=True, append_images=[halves(BLACK, BLACK)], lossless=True), (RED, GREEN)),
    "several pages, TIFF": (lambda path: halves().save(path.with_suffix(".tif"), save_all=True, append_images=[halves(BLACK, BLACK)]), (RED, GREEN)),
    "rotated by EXIF": (draw_rotated, (RED, GREEN)),
    "AVIF": (lambda path: halves().save(path.with_suffix(".avif"), quality=100), (RED, GREEN)),
    "HEIC": (lambda path: shutil.copy(ROOT / "tests/fixtures/two_colours.heic", path.with_suffix(".heic")), ((20, 40, 210), (200, 30, 40))),
    "wrong suffix": (lambda path: halves().save(path.with_suffix(".jpg"), "PNG"), (RED, GREEN)),
    "strip of 1 x 4000 pixels": (lambda path: halves(size=(4000, 1)).save(path.with_suffix(".png")), (RED, GREEN)),
    "sizes that differ by a factor of 100": (lambda path: halves(size=(3200, 2400)).save(path.with_suffix(".png")), (RED, GREEN)),
}


def draw(name, path):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if name == "HEIC":
        pytest.importorskip("pi_heif")
    CASES[name][0](path)
    return next(path.parent.glob(f"{path.name}.*"))


def test_the_page_lists_what_is_tested():
    page = (ROOT / "docs/reference/image-formats.md").read_text()
    assert re.findall(r"^\| (?!image \|)(.+?) \|", page, re.MULTILINE) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_an_image_becomes_what_the_page_says(tmp_path, name):
    path = draw(name, tmp_path / "image")
    image = images.open_image(path)
    assert image.mode == "RGB"
    corners = (0, 0), (image.width - 1, image.height - 1)
    for corner, expected in zip(corners, CASES[name][1], strict=True):
        assert image.getpixel(corner) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("policy", ["squish", "crop", "pad"])
def test_training_stores_the_pixels_that_a_prediction_gets(tmp_path, name, policy):
    for label in ("a", "b"):
        for n in range(5):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            draw_image(tmp_path / "data" / label / f"{n}.png", RED, n)
    path = str(draw(name, tmp_path / "data" / "a" / "image"))
    task = tasks.folder_task(tmp_path / "data")
    settings = resolve.resolve_settings(task, None, {"size": 24, "resize": policy})
    _, kept = open_store(load_table(task, settings, tmp_path / "data"), settings)
    predicted = images.prepare(Image.fromarray(open_pixels(path)), 24, 24, policy)
    assert np.array_equal(kept.pixels[kept.index[path]].transpose(1, 2, 0), predicted)


def test_heic_without_its_package_names_the_package(monkeypatch):
    Image.init()  # formats that are registered later go into the list of this test only
    monkeypatch.setattr(images, "_register_heic", lambda: None)
    for registry in (Image.OPEN, Image.EXTENSION):
        for key in [key for key, value in registry.items() if "HEIF" in (key, value)]:
            monkeypatch.delitem(registry, key)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'tlfast\[heic\]'"):
        images.open_image(ROOT / "tests/fixtures/two_colours.heic")
