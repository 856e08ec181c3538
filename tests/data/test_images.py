from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from tlfast.core.errors import ImageError
from tlfast.data import images


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_orientation_is_applied():
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert images.open_image(encoded(image, "JPEG", exif=exif)).size == (2, 4)


def test_transparency_lies_over_white():
    assert images.open_image(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))).getpixel((0, 0)) == (255, 255, 255)
    assert images.open_image(encoded(Image.new("LA", (2, 2), (0, 128)))).getpixel((0, 0))[0] in (126, 127, 128)


def test_deep_grey_is_scaled_not_clipped():
    deep = np.array([[0, 16384], [32768, 65535]], dtype=np.uint16)
    opened = np.asarray(images.open_image(encoded(Image.fromarray(deep))))[:, :, 0]
    assert opened.tolist() == [[0, 64], [128, 255]]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (3, 3), c) for c in ("blue", "red")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.open_image(data).getpixel((1, 1)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    opened = images.open_image(Image.new(mode, (5, 4)))
    assert opened.mode == "RGB" and opened.size == (5, 4)


def test_arrays():
    grey = np.full((4, 6), 7, np.uint8)
    assert images.open_image(grey).size == (6, 4)
    assert images.open_image(np.zeros((4, 6, 3), np.uint8)).mode == "RGB"
    for bad in (np.zeros((4, 6)), np.zeros((2, 4, 6, 3), np.uint8), np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(ImageError, match="an array image must be"):
            images.open_image(bad)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "the file is empty"), (b"hello, I am a text", "not an image that can be read"), (encoded(Image.effect_noise((64, 64), 9))[:900], "damaged image")],
)
def test_reasons(data, reason):
    with pytest.raises(ImageError, match=reason):
        images.open_image(data)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="10x10 pixels are more than the limit of 99"):
        images.open_image(encoded(Image.new("RGB", (10, 10))))


def test_zip_members(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cat/1.png", encoded(Image.new("RGB", (3, 2))))
    assert images.open_image(f"{archive}!/cat/1.png").size == (3, 2)
    with pytest.raises(ImageError, match="cannot be read"):
        images.open_image(f"{archive}!/cat/2.png")
    with pytest.raises(ImageError, match="No such file"):
        images.open_image(str(tmp_path / "none.png"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_member_is_a_reason(tmp_path, method):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        file.writestr("1.png", bytes(range(256)) * 40)
    data = bytearray(archive.read_bytes())
    for place in range(36, 36 + 60):  # behind the member's head
        data[place] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be read"):
        images.open_image(f"{archive}!/1.png")


def test_resize_policies():
    wide = Image.new("RGB", (40, 20), "red")
    wide.paste("blue", (0, 0, 10, 20))
    squished, cropped, padded = (np.asarray(images.resize(wide, 20, policy)) for policy in ("squish", "crop", "pad"))
    assert squished.shape == cropped.shape == padded.shape == (20, 20, 3)
    assert squished[10, 1, 2] == 255 and cropped[10, 1, 0] == 255  # the blue left is squeezed in, but cropped away
    assert padded[0].max() == 0 and padded[10, 10, 0] == 255  # black bars above and below


def test_prepare_crops_the_centre():
    image = Image.new("RGB", (16, 16), "black")
    image.paste("white", (4, 4, 12, 12))
    assert images.prepare(image, 8, 16, "squish").min() == 255


@pytest.mark.parametrize(("name", "known"), [("a.JPG", True), ("b.webp", True), (".hidden.png", False), ("c.txt", False), ("._d.jpg", False)])
def test_names(name, known):
    assert images.is_image_name(name) is known
