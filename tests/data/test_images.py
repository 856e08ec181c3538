from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from functools import partial
from threading import Thread, get_ident

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers.files import image_bytes
from tlfast.core.errors import ImageError
from tlfast.core.system import limit_cores
from tlfast.data import images
from tlfast.data.tiff_messages import collect_messages

Image.init()
FORMATS = ["AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI", "TIFF", "WEBP", "XBM"]


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_orientation_is_applied():
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert images.open_image(encoded(image, "JPEG", exif=exif)).size == (2, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_decoded_and_turned_without_a_copy(monkeypatch, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.effect_noise((7, 5), 50).convert("RGB"), "JPEG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    monkeypatch.delattr(Image.Image, "copy")
    monkeypatch.delattr(Image.Image, "convert")
    assert (np.asarray(images.open_image(data)) == expected).all()


def test_an_image_that_is_given_is_not_changed():
    exif = Image.Exif()
    exif[0x0112] = 6
    given = Image.open(io.BytesIO(encoded(Image.new("RGB", (4, 2), "red"), "JPEG", exif=exif, comment="mine")))
    assert images.open_image(given).size == (2, 4)
    assert given.size == (4, 2) and given.getexif()[0x0112] == 6 and given.info["comment"] == b"mine"


def test_a_photo_can_be_decoded_at_a_part_of_its_size():
    data = encoded(Image.new("RGB", (1600, 800), "red"), "JPEG")
    assert [images.decode(data, side).size for side in (0, 100, 300, 900)] == [(1600, 800), (200, 100), (800, 400), (1600, 800)]
    assert images.decode(encoded(Image.new("RGB", (1600, 800), "red")), 100).size == (1600, 800)


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


def test_a_truncated_file_that_pillow_has_opened():
    data = encoded(Image.effect_noise((64, 64), 50))
    with pytest.raises(ImageError, match="damaged image"):
        images.open_image(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_broken_package_for_heic_harms_no_other_images(monkeypatch):
    def fail(name):
        raise ImportError("libheif.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setattr("importlib.import_module", fail)
    images._register_heic.cache_clear()
    assert images.open_image(image_bytes()).size == (8, 8)
    images._register_heic.cache_clear()


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "La", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    opened = images.open_image(Image.new(mode, (5, 4)))
    assert opened.mode == "RGB" and opened.size == (5, 4)


def test_bytes_of_any_kind():
    data = image_bytes(1)
    assert {images.open_image(kind(data)).tobytes() for kind in (bytes, bytearray, memoryview)} == {images.open_image(data).tobytes()}


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


def test_a_side_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_SIDE", 99)
    with pytest.raises(ImageError, match="3x100 pixels: a side is longer than the limit of 99"):
        images.open_image(encoded(Image.new("RGB", (3, 100))))


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (1, 90), (91, 1), (30, 30)])
def test_padding_some_rows_at_a_time_gives_the_pixels_of_the_whole_square(monkeypatch, size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    whole = np.asarray(images.resize(image, 24, "pad"))
    monkeypatch.setattr(images, "PADDED_PIXELS", 7 * max(size))
    assert np.array_equal(images.resize(image, 24, "pad"), whole)
    assert whole.any()


def test_a_zip_below_a_folder_with_letters_of_other_lengths_in_lower_case(tmp_path):
    (tmp_path / "İş").mkdir()
    with zipfile.ZipFile(tmp_path / "İş" / "İzmir.ZIP", "w") as file:
        file.writestr("cat/1.png", image_bytes(1))
    assert images.open_image(f"{tmp_path}/İş/İzmir.ZIP!/cat/1.png").getpixel((0, 0)) == (1, 1, 1)
    assert images.split_zip("a.zİp!/b") == ("a.zİp!/b", "")


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


def write_as(path, kind, **options):
    """Write a small picture in a format of Pillow."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    mode = {"XBM": "1", "MSP": "1", "GIF": "P", "ICNS": "RGBA"}.get(kind, "RGB")
    (picture.resize((128, 128)) if kind == "ICNS" else picture).convert(mode).save(path, kind, **options)
    return path


@pytest.mark.parametrize("kind", sorted(Image.SAVE.keys() & set(FORMATS)))  # older versions of Pillow write fewer
def test_what_pillow_recognizes_is_an_image_under_any_name(tmp_path, kind):
    for name in ("without_suffix", "picture.dat", "picture.jpg_large"):
        path = write_as(tmp_path / name, kind)
        assert images.identify(path.name, partial(path.open, "rb"))
        assert images.open_image(path).mode == "RGB"


def test_other_files_are_no_images_and_those_with_known_suffixes_are_not_opened(tmp_path):
    contents = {
        "notes": b"some text",
        "a.bin": bytes(range(256)),
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "empty": b"",
        "a.svg": b"<svg/>",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert not images.identify(name, partial((tmp_path / name).open, "rb"))
    for name, known in (("a.jpg", True), ("a.TGA", True), ("a.json", False), (".hidden", False)):
        assert images.identify(name, lambda: pytest.fail("opened")) is known


def test_a_postscript_file_is_not_given_to_ghostscript():
    with pytest.raises(ImageError, match="EPS files are not read as images"):
        images.decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "group4"])
def test_messages_of_libtiff_are_the_reason_and_not_on_stderr(tmp_path, capfd, compression):
    path = tmp_path / "scan.tif"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    (noise.convert("1") if compression == "group4" else noise).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    data[8:120] = bytes(112)
    capfd.readouterr()
    reason = ""
    try:
        images.decode(bytes(data))
    except ImageError as error:
        reason = error.message
    assert "libtiff" not in reason
    assert compression == "group4" or reason.startswith("damaged image (decoder error -2; ")  # Pillow reads what is left of a fax
    assert capfd.readouterr().err == ""


def test_other_threads_and_programs_see_the_messages_of_libtiff_on_stderr(tmp_path, capfd):
    path = write_as(tmp_path / "scan.tif", "TIFF", compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[8:120] = bytes(112)
    with collect_messages() as messages:
        thread = Thread(target=load_damaged, args=(bytes(data),))
        thread.start()
        thread.join()
    assert messages == [] and "not yet in table" in capfd.readouterr().err


def load_damaged(data):
    with pytest.raises(OSError, match="decoder error"), Image.open(io.BytesIO(data)) as image:
        image.load()


def test_a_format_that_another_thread_registers_meanwhile_is_read(tmp_path):
    write_as(tmp_path / "image.tif", "TIFF")
    code = """
import sys
from PIL import Image
from tlfast.data import images

class Formats(list):
    def copy(self):  # after the known formats were tried, and before the others are registered
        Image.init()
        return list(self)

Image.ID = Formats(Image.ID)
print(images.open_image(sys.argv[1]).size)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "image.tif")], capture_output=True, text=True)
    assert done.stdout.strip() == "(32, 32)", done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_devices_and_folders_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name, reason in (("pipe", "not a regular file"), ("endless", "not a regular file"), ("folder", "is a folder")):
        with pytest.raises(ImageError, match=rf"cannot be read \({reason}\)"):
            images.open_image(tmp_path / f"{name}.png")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="more than the limit of 2,147,483,648"):
        images.open_image(tmp_path / "sparse.jpg")


def test_values_that_are_not_finite(tmp_path):
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match="some values are not finite numbers"):
        images.open_image(tmp_path / "nan.tif")


def test_a_zip_that_was_written_again_is_read_again(tmp_path):
    path, colours = tmp_path / "p.zip", []
    for colour in ((255, 0, 0), (0, 0, 255)):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            archive.writestr("a/1.png", buffer.getvalue())
        (tmp_path / "new.zip").replace(path)
        colours.append(images.open_image(f"{path}!/a/1.png").getpixel((0, 0)))
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_images_are_read_by_as_many_threads_as_there_are_cores():
    limit_cores(1)
    try:
        assert len(set(images.map_images([str(n) for n in range(50)], lambda path: get_ident(), "", lambda event: None))) == 1
    finally:
        limit_cores(None)
