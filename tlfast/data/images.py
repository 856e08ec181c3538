"""The one place that opens and resizes an image.

An image is named by a file's path, or by `archive.zip!/member` where it lies inside a zip.
"""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..core.errors import ImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif"})
ZIP_MARK = ".zip!/"
# What zipfile lets out of a damaged, encrypted or unknown archive; its RuntimeError covers a method that it does not know.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)
MAX_PIXELS = 178_956_970  # Pillow's own limit for an error: beyond this an image is a bomb, or no photograph, and is not decoded


def is_image_name(name: str) -> bool:
    """Tell by its suffix whether a name is an image's (hidden files, such as macOS's `._x.jpg`, are not)."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def open_image(source: str | Path | bytes | Image.Image | np.ndarray) -> Image.Image:
    """Open an image as upright 8-bit RGB, whatever it was.

    EXIF orientation is applied, 16-bit values are scaled, transparency is laid over white, and of an animation the first frame is
    taken. An array is `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]` of uint8. Raises ImageError with the reason alone.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    data = source if isinstance(source, bytes) else read_bytes(str(source))
    return decode(data)


def decode(data: bytes) -> Image.Image:
    """Decode an image file's bytes to upright 8-bit RGB. Raises ImageError."""
    if not data:
        raise ImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            _guard(image)
            image.seek(0)
            return _to_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except Image.UnidentifiedImageError:
        raise ImageError("not an image that can be read") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"damaged image ({_reason(error)})") from None


def describe(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return an image file's mode and (width, height) from its header. Raises ImageError."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode, image.size
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except Image.UnidentifiedImageError:
        raise ImageError("not an image that can be read") from None
    except Exception as error:
        raise ImageError(f"not an image that can be read ({_reason(error)})") from None


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file or of a zip's member. Raises ImageError."""
    archive, member = split_zip(path)
    try:
        if member:
            return _archive(archive, os.getpid()).read(member)
        return Path(path).read_bytes()
    except (OSError, KeyError, *DAMAGED_ZIP) as error:
        raise ImageError(f"cannot be read ({_reason(error)})") from None


def split_zip(path: str) -> tuple[str, str]:
    """Split `a.zip!/b/c.jpg` into ("a.zip", "b/c.jpg"); a plain path gives (path, "")."""
    at = path.lower().find(ZIP_MARK)
    return (path, "") if at < 0 else (path[: at + 4], path[at + len(ZIP_MARK) :])


def resize(image: Image.Image, size: int, policy: str) -> Image.Image:
    """Make an RGB image a square of `size` pixels, antialiased (bilinear over the reduced area).

    squish ignores the proportions; crop keeps the largest centred square; pad adds black bars. The boxes are those of fastai's
    `Resize`, so that an exported fastai learner sees the same pixels.
    """
    if policy == "squish":
        return _scale(image, size)
    width, height = image.size
    side = max(1, min(width, height) if policy == "crop" else max(width, height))
    left, top = int(0.5 * (width - side)), int(0.5 * (height - side))
    if policy == "crop":
        return _scale(image.crop((left, top, left + side, top + side)), size)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(image, (-left, -top))
    return _scale(canvas, size)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the central square of `size` pixels out of a larger image."""
    width, height = image.size
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def prepare(image: Image.Image, size: int, full_size: int, policy: str) -> np.ndarray:
    """Return what the network sees of an RGB image: uint8 `[size, size, 3]`."""
    image = resize(image, full_size, policy)
    return np.asarray(image if full_size == size else centre_crop(image, size))


def _scale(image: Image.Image, size: int) -> Image.Image:
    # Width first, then height, each rounded to 8 bits: Pillow's own order depends on its version and on the image, that of `portable` does not.
    narrowed = image.resize((size, image.height), Image.Resampling.BILINEAR)
    return narrowed.resize((size, size), Image.Resampling.BILINEAR)


def _to_rgb(image: Image.Image) -> Image.Image:
    _guard(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale deep grey values to 0..255; Pillow's own conversion clips them to white."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0)
    full = 1.0 if top <= 1 and image.mode == "F" else 255.0 if top <= 255 and not image.mode.startswith("I;16") else max(65535.0, top)
    return Image.fromarray((values.clip(0) * (255.0 / full)).round().clip(0, 255).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array image must be uint8, this one is {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ImageError(f"an array image must be [h, w], [h, w, 3] or [h, w, 4], this one is {list(array.shape)}")
    return Image.fromarray(array)


def _guard(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels are more than the limit of {MAX_PIXELS:,}")
    if not width or not height:
        raise ImageError("the image has no pixels")


@lru_cache(maxsize=8)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    # One handle a process: a forked loader process that shared its parent's file position would read garbage.
    return zipfile.ZipFile(path)


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0][:120] if text else type(error).__name__
