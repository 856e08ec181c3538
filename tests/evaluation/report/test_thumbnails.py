"""Thumbnails of the report."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tlfast.evaluation.report import thumbnails

SECRET = "52.5200 N, 13.4050 E"


def save_jpeg(image, path):
    exif = Image.Exif()
    exif[0x010E] = SECRET  # description
    exif.get_ifd(0x8825)[0x001D] = SECRET  # date in the group of the place
    image.save(path, "JPEG", exif=exif, comment=SECRET)


def save_png(image, path):
    text = PngInfo()
    text.add_text("Place", SECRET)
    image.save(path, "PNG", pnginfo=text)


@pytest.mark.parametrize("save", [save_jpeg, save_png])
@pytest.mark.parametrize("size", [(64, 48), (400, 300)])
def test_metadata_of_a_photograph_is_not_in_its_thumbnail(tmp_path, save, size):
    path = tmp_path / "photo"
    save(Image.new("RGB", size, "red"), path)
    assert SECRET.encode() in path.read_bytes()
    url = thumbnails.make_thumbnail(str(path))
    data = base64.b64decode(url.partition(",")[2])
    assert SECRET.encode() not in data
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) <= thumbnails.SIDE
        assert not image.getexif() and "comment" not in image.info


def test_a_large_photograph_is_decoded_at_a_part_of_its_size(tmp_path, monkeypatch):
    sizes, path = [], tmp_path / "photo.jpg"
    Image.new("RGB", (3200, 3200), "red").save(path)
    monkeypatch.setattr(Image.Image, "thumbnail", lambda image, size: sizes.append(image.size))
    assert thumbnails.make_thumbnail(str(path)) and sizes == [(400, 400)]
