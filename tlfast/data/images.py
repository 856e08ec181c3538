"""Opening, decoding and resizing of images. No other module does this.

The path of an image is that of a file, `archive.zip!/member` or `archive.tar!/member`, or `file.parquet#12` for the image of row 12.
Of several columns of images it is the first; `file.parquet#photo:12` names another one.
"""

from __future__ import annotations

import importlib.util
import io
import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..core import ImageError, OnEvent, Progress
from ..core.errors import first_line
from ..core.system import count_cores
from .decoding_limit import DecodingLimit, reserve
from .tiff_messages import collect_messages

# Formats that Pillow lists but that hold no picture, or whose decoder is another program.
EXCLUDED_FORMATS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# Files with these suffixes are taken for images, and reported if they are not. Others are images if Pillow recognizes their content, which it cannot
# for .tga, .im and .pcd.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".ico", ".tga", ".im", ".pcd"}
    | {".avif", ".heic", ".heif"}
)
HEIC_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1")  # at byte 4 of a HEIC file
# Files with these suffixes are not opened to see whether they are images.
OTHER_SUFFIXES = frozenset({".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".html", ".py", ".parquet", ".pdf", ".zip", ".tar", ".gz", ".npy", ".pt"})
ZIP_MARK = re.compile(r"(?<=\.zip)!/", re.IGNORECASE | re.ASCII)  # between a zip and a member; only ASCII letters, or İ is an i
PACKED_PATH = re.compile(r"(.+?\.tar)!/(.+)|(.+\.parquet)#((?:[^#]*:)?\d+)", re.IGNORECASE | re.DOTALL)  # a member of a tar, or a row of a parquet file
# Exceptions of zipfile for damaged and encrypted archives; RuntimeError includes unknown compression methods, IndexError is that of a member without a name.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError, IndexError)
BLOCK = 256  # images that are processed ahead of the consumer of `map_images`
MAX_BYTES = 2 << 30  # of a file
MAX_SIDE = 65_535  # pixels, the limit of JPEG: resizing needs memory in proportion to it
PADDED_PIXELS = 1 << 24  # of the rows that are padded at a time
MAX_PIXELS = 178_956_970  # Pillow's limit for DecompressionBombError: larger images are not decoded
LOADED_ONCE = (Image.Image.load, ImageFile.ImageFile.load)  # images of other formats may read their file again, which is closed then

T = TypeVar("T")


def is_image_name(name: str) -> bool:
    """Return whether a file name has the suffix of an image. Hidden files, such as `._x.jpg` of macOS, are not images.

    >>> is_image_name("cat/1.JPG"), is_image_name("cat/._1.jpg")
    (True, False)
    """
    path = Path(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


@lru_cache(maxsize=1)
def _register_heic() -> None:
    """Let Pillow read HEIC images, if the package pi_heif is installed (extra `heic`) and works."""
    if importlib.util.find_spec("pi_heif"):
        with suppress(ImportError, OSError):  # of its library; other images need neither
            importlib.import_module("pi_heif").register_heif_opener()


@lru_cache(maxsize=1)
def _identifiable_formats() -> list[str]:
    """Return the formats that Pillow recognizes by the first bytes of a file."""
    Image.init()
    _register_heic()
    return [name for name, (_, accept) in Image.OPEN.items() if accept and name not in EXCLUDED_FORMATS]


def identify(name: str, open_file: Callable[[], IO[bytes]]) -> bool:
    """Return whether a file is an image: by its suffix, or by the content if the suffix is unknown. Hidden files are no images."""
    path = Path(name)
    if path.name.startswith(".") or path.suffix.lower() in OTHER_SUFFIXES:
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with open_file() as file, Image.open(file, formats=_identifiable_formats()):
            return True
    except Exception:  # as in `decode`
        return False


def open_image(source: str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray, side: int = 0) -> Image.Image:
    """Return an image as upright 8-bit RGB.

    `source` is a path, the bytes of a file, a Pillow image, or a uint8 array `[h, w]`, `[h, w, 1]`, `[h, w, 3]` or `[h, w, 4]`. The EXIF orientation is
    applied, 16-bit values are scaled, transparent pixels are blended with white, and the first frame of an animation is used. With `side`, large files
    are decoded at a part of their size, as by `decode`. Raises ImageError; its message is the reason without the path.
    """
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source)  # decodes the file of an image that is not loaded yet
        except ImageError:
            raise
        except Exception as error:  # as in `decode`
            raise ImageError(f"damaged image ({_reason(error)})") from None
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), in_place=True)
    data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else read_bytes(str(source))
    return decode(data, side)


def decode(data: bytes, side: int = 0) -> Image.Image:
    """Decode the bytes of an image file to upright 8-bit RGB. Raises ImageError.

    With `side`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, but never to less than `side` pixels in width or height.
    """
    if not data:
        raise ImageError("the file is empty")
    messages: list[str] = []
    try:
        with _open_file(data) as image, collect_messages() as messages:
            if image.format in EXCLUDED_FORMATS:
                raise ImageError(f"{image.format} files are not read as images")
            _check_size(image)
            image.seek(0)
            if side:
                image.draft(None, (side, side))
            reserve(image.width * image.height)
            return _to_rgb(image, in_place=True)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        raise ImageError(_explain_unidentified(data)) from None
    except Exception as error:  # Pillow's decoders raise many types of exceptions for damaged files
        raise ImageError(f"damaged image ({'; '.join([_reason(error), *messages[:1]])})") from None


def _open_file(data: bytes) -> Image.Image:
    """Open the bytes of an image file, without decoding. Raises errors of Pillow."""
    _register_heic()
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        # Pillow does not try the formats that another thread is registering meanwhile.
        Image.init()
        return Image.open(io.BytesIO(data))


def _explain_unidentified(data: bytes) -> str:
    if data[4:12] in HEIC_BRANDS and "HEIF" not in Image.OPEN:
        return "HEIC images need another package: pip install 'tlfast[heic]'"
    return "not an image that can be read"


def describe(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return the Pillow mode and (width, height) in the header of an image file. Raises ImageError."""
    try:
        with _open_file(data) as image:
            return image.mode, image.size
    except Image.DecompressionBombError:
        raise ImageError(f"more pixels than the limit of {MAX_PIXELS:,}") from None
    except UnidentifiedImageError:
        raise ImageError("not an image that can be read") from None
    except Exception as error:
        raise ImageError(f"not an image that can be read ({_reason(error)})") from None


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file or of a member of a zip. Raises ImageError."""
    archive, member = split_zip(path)
    try:
        if member:
            return _open_archive(archive).read(member)
        if packed := split_packed(path):
            from . import packed as reader  # needs pyarrow, and most images are files

            return reader.read_member(*packed)
        _check_file(path)
        return Path(path).read_bytes()
    except (OSError, KeyError, ValueError, *DAMAGED_ZIP) as error:  # ValueError: a NUL character in the path
        raise ImageError(f"cannot be read ({_reason(error)})") from None


def _check_file(path: str) -> None:
    """Raise ImageError for pipes, sockets and devices, which may have no end, and for files of more than MAX_BYTES."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("cannot be read (is a folder)" if stat.S_ISDIR(status.st_mode) else "cannot be read (not a regular file)")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"{status.st_size:,} bytes are more than the limit of {MAX_BYTES:,}")


def split_zip(path: str) -> tuple[str, str]:
    """Return the zip and the member of a path, or (path, "") for a plain path.

    >>> split_zip("a.zip!/b/c.jpg")
    ('a.zip', 'b/c.jpg')
    """
    mark = ZIP_MARK.search(path)
    return (path[: mark.start()], path[mark.end() :]) if mark else (path, "")


def split_packed(path: str) -> tuple[str, str] | None:
    """Return the tar and the member of a path, or the parquet file and the row; None for other paths, and for files of such a name.

    >>> split_packed("a.tar!/b.jpg"), split_packed("a.parquet#3"), split_packed("a.jpg")
    (('a.tar', 'b.jpg'), ('a.parquet', '3'), None)
    """
    found = PACKED_PATH.fullmatch(path) if "!/" in path or "#" in path else None  # most paths need no search
    if not found or os.path.exists(path):
        return None
    file, member = (part for part in found.groups() if part is not None)
    return file, member


def split_archive(path: str) -> tuple[str, str]:
    """Return the zip, tar or parquet file of a path and the member or row, or (path, "") for a plain path."""
    return split_packed(path) or split_zip(path)


def resize(image: Image.Image, size: int, policy: str) -> Image.Image:
    """Resize an RGB image to a square of `size` pixels, with an antialiased bilinear filter.

    Policy "squish" changes the aspect ratio, "crop" cuts out the largest centred square, "pad" adds black bars. The boxes equal those of
    fastai's `Resize`, so that an exported fastai learner gets the same pixels.
    """
    if policy == "squish":
        return _scale(image, size)
    if policy == "pad":
        return _scale_padded(image, size)
    width, height = image.size
    side = max(1, min(width, height))
    left, top = int(0.5 * (width - side)), int(0.5 * (height - side))
    return _scale(image.crop((left, top, left + side, top + side)), size)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the central square of `size` pixels of a larger image."""
    width, height = image.size
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def prepare(image: Image.Image, size: int, full_size: int, policy: str) -> np.ndarray:
    """Resize an RGB image to `full_size` and crop it to `size`. Returns uint8 `[size, size, 3]`."""
    image = resize(image, full_size, policy)
    return np.asarray(image if full_size == size else centre_crop(image, size))


def map_images(paths: Sequence[str], work: Callable[[str], T], phase: str, on_event: OnEvent) -> Iterator[T]:
    """Yield `work(path)` for each path in order, computed by threads (decoding releases the GIL).

    Work is submitted in blocks of paths, which bounds the memory for results. The images that are decoded at the same time take at most half of the
    free memory: further threads wait. `phase` is the text of the progress events.
    """
    from concurrent.futures import ThreadPoolExecutor  # takes milliseconds, and `--help` needs none

    limit = DecodingLimit()
    with ThreadPoolExecutor(max_workers=min(32, count_cores())) as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            yield from pool.map(partial(limit.run, work), block)
            on_event(Progress(phase, start + len(block), len(paths)))


def _scale(image: Image.Image, size: int) -> Image.Image:
    # Width, then height, each rounded to 8 bits, as in the ONNX preprocessing. Pillow's order depends on its version and on the image.
    narrowed = image.resize((size, image.height), Image.Resampling.BILINEAR)
    return narrowed.resize((size, size), Image.Resampling.BILINEAR)


def _scale_padded(image: Image.Image, size: int) -> Image.Image:
    """Scale an image with black bars to a square. Some rows are padded at a time, as the whole square of a long strip needs gigabytes."""
    width, height = image.size
    side = max(1, width, height)
    left, top = int(0.5 * (side - width)), int(0.5 * (side - height))
    narrowed = Image.new("RGB", (size, side))
    rows = max(1, PADDED_PIXELS // side)
    for start in range(0, height, rows):
        count = min(rows, height - start)
        padded = Image.new("RGB", (side, count))
        padded.paste(image.crop((0, start, width, start + count)), (left, 0))
        narrowed.paste(padded.resize((size, count), Image.Resampling.BILINEAR), (0, top + start))
    return narrowed.resize((size, size), Image.Resampling.BILINEAR)


def _to_rgb(image: Image.Image, in_place: bool = False) -> Image.Image:
    """Return an image as upright 8-bit RGB. Raises ImageError for too many pixels or none.

    The result is a copy, or, with `in_place`, can be the image itself, which needs less memory.
    """
    _check_size(image)
    if in_place:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        image = ImageOps.exif_transpose(image)
    if image.mode == "La":  # which Pillow converts to LA only
        image = image.convert("LA")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode != "RGB" or type(image).load not in LOADED_ONCE:
        image = image.convert("RGB")
    image.info.clear()  # comments would be saved with a thumbnail
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of more than 8 bits to 0..255. Pillow's conversion would clip them to white."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("some values are not finite numbers")
    top = values.max(initial=0)
    full = 1.0 if top <= 1 and image.mode == "F" else 255.0 if top <= 255 and not image.mode.startswith("I;16") else max(65535.0, top)
    return Image.fromarray((values.clip(0) * (255.0 / full)).round().clip(0, 255).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"an array image must be uint8, not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ImageError(f"an array image must be [h, w], [h, w, 3] or [h, w, 4], not {list(array.shape)}")
    return Image.fromarray(array)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width}x{height} pixels are more than the limit of {MAX_PIXELS:,}")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{width}x{height} pixels: a side is longer than the limit of {MAX_SIDE:,}")
    if not width or not height:
        raise ImageError("the image has no pixels")


def _open_archive(path: str) -> zipfile.ZipFile:
    """Return an open zip, opened again after a change: one for each process, because forked processes would share the file position of their parent."""
    stat = os.stat(path)
    return _keep_open(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino), os.getpid())


@lru_cache(maxsize=8)
def _keep_open(path: str, version: tuple[int, int, int], process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else first_line(error))[:120]
