"""Odd images, made by hand: every one has an outcome that is the same wherever an image is read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIZE = (40, 32)


@dataclass(frozen=True)
class Odd:
    """A file: its bytes, and what is said of it ("" where it is read)."""

    make: Callable[[], bytes]
    reason: str = ""


def picture(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A red disc on grey noise, in any mode."""
    rng = np.random.default_rng(4)
    pixels = np.repeat(rng.integers(96, 160, (size[1], size[0], 1)), 3, axis=2)
    y, x = np.indices((size[1], size[0]))
    pixels[(x - size[0] / 2) ** 2 + (y - size[1] / 2) ** 2 < (min(size) / 3) ** 2] = (230, 30, 30)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(picture(), "JPEG", exif=exif)


def frames(kind: str, **options) -> bytes:
    return saved(picture(), kind, save_all=True, append_images=[picture().rotate(90), picture().rotate(180)], **options)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, lines: bytes) -> bytes:
    """A PNG by hand, with whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def deep_rgb() -> bytes:
    rows = np.asarray(picture()).astype(">u2") * 257
    return png(*SIZE, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def palette() -> bytes:
    image = picture().quantize(16)
    return saved(image, "PNG", transparency=0)


def alpha() -> bytes:
    image = picture("RGBA")
    image.putalpha(picture("L"))
    return saved(image, "PNG")


TRUNCATED, UNKNOWN = "damaged image", "not an image that can be read"
CORPUS = {
    "cmyk.jpg": Odd(lambda: saved(picture("CMYK"), "JPEG")),
    "lab.tif": Odd(lambda: saved(picture("LAB"), "TIFF")),
    "one bit.png": Odd(lambda: saved(picture("1"), "PNG")),
    "deep grey.png": Odd(lambda: saved(Image.fromarray(np.asarray(picture("L")).astype(np.uint16) * 257), "PNG")),
    "deep colour.png": Odd(deep_rgb),
    "float.tif": Odd(lambda: saved(picture("F"), "TIFF")),
    "palette.png": Odd(palette),
    "alpha.png": Odd(alpha),
    "grey alpha.png": Odd(lambda: saved(picture("LA"), "PNG")),
    "animated.gif": Odd(lambda: frames("GIF")),
    "animated.webp": Odd(lambda: frames("WEBP")),
    "animated.png": Odd(lambda: frames("PNG")),
    "two pictures.jpg": Odd(lambda: frames("MPO")),
    "many pages.tiff": Odd(lambda: frames("TIFF")),
    **{f"orientation {n}.jpg": Odd(lambda n=n: oriented(n)) for n in range(1, 9)},
    "orientation 99.jpg": Odd(lambda: oriented(99)),
    "broken exif.jpg": Odd(lambda: saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")),
    "one pixel.png": Odd(lambda: saved(picture(size=(1, 1)), "PNG")),
    "a line.png": Odd(lambda: saved(picture(size=(1, 10_000)), "PNG")),
    "CASE.JpEg": Odd(lambda: saved(picture(), "JPEG")),
    "really a png.jpg": Odd(lambda: saved(picture(), "PNG")),
    "with space.png": Odd(lambda: saved(picture(), "PNG")),
    "ünï — 写真 🌱.png": Odd(lambda: saved(picture(), "PNG")),
    'it\'s "quoted".png': Odd(lambda: saved(picture(), "PNG")),
    "two\nlines.png": Odd(lambda: saved(picture(), "PNG")),
    "--quiet.png": Odd(lambda: saved(picture(), "PNG")),
    "100% {sure} [x] $HOME;.png": Odd(lambda: saved(picture(), "PNG")),
    "truncated.jpg": Odd(lambda: saved(picture(size=(200, 200)), "JPEG")[:2500], TRUNCATED),
    "truncated.png": Odd(lambda: saved(picture(size=(200, 200)), "PNG")[:2500], TRUNCATED),
    "no bytes.jpg": Odd(lambda: b"", "the file is empty"),
    "no width.png": Odd(lambda: png(0, 32, 8, 2, b""), UNKNOWN),
    "text.jpg": Odd(lambda: b"I am no picture, whatever I am called.\n" * 40, UNKNOWN),
    "bomb.png": Odd(lambda: png(20_000, 20_000, 8, 2, b"\0" * 100), "more than the limit|more pixels than the limit"),
    "page.svg.png": Odd(lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", UNKNOWN),
}
