"""Load an exported classifier and classify images: `tlfast.load` and `tlfast predict`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from ..core import ImageError, OnEvent, RunError, UsageError, ignore_event, runs
from ..core.run_files import EXAMPLE_FILE, MANIFEST
from ..data import images
from ..data.discovery import is_http_url
from ..data.remote import is_fsspec_url, read_remote
from . import hub
from .onnx_model import Network, Opener, name_file, open_network, predict_stream, rank_classes
from .types import Prediction, PredictRow

ImageSource = str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray


def open_pixels(source: ImageSource, network: bool = True, allow_private: bool = False) -> np.ndarray:
    """Open an image as uint8 RGB `[h, w, 3]`.

    An http(s) address is downloaded if `network` is true; addresses in private networks also need `allow_private`. Those of other file systems, such as
    s3://, are read by fsspec. Raises ImageError.
    """
    if isinstance(source, str) and is_http_url(source):
        if not network:
            raise ImageError("not downloaded, because --no-network is set")
        from ..data.fetch import fetch  # the import of ssl and http takes longer than a prediction

        source = fetch(source, allow_private)
    elif isinstance(source, str) and is_fsspec_url(source):
        if not network:
            raise ImageError("not read, because --no-network is set")
        source = read_remote(source)
    if not isinstance(source, ImageSource | os.PathLike):
        raise ImageError(f"neither an image nor the path of one: {type(source).__name__}", "Give a path, bytes, a PIL image or a uint8 array")
    return np.asarray(images.open_image(source))


@dataclass(frozen=True)
class Classifier:
    """A trained classifier. Thread-safe. `run` is the id of its run, or "" if the file does not name one.

    >>> tlfast.load("exports/weeds").predict("photo.jpg").label  # doctest: +SKIP
    'Lantana'
    """

    network: Network
    run: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the network's outputs."""
        return self.network.classes

    @property
    def info(self) -> Mapping[str, str]:
        """Metadata of the export: task, run, arch, size, resize, weights and their licence, version of tlfast."""
        return self.network.info

    @overload
    def predict(self, image: ImageSource) -> Prediction: ...

    @overload
    def predict(self, image: list[ImageSource] | tuple[ImageSource, ...]) -> list[Prediction]: ...

    def predict(self, image: ImageSource | list[ImageSource] | tuple[ImageSource, ...]) -> Prediction | list[Prediction]:
        """Classify one image, or a list or tuple of images.

        An image is a path, an http(s) address, the bytes of an image file, a PIL image, or a uint8 array `[h, w]`, `[h, w, 3]` or
        `[h, w, 4]`. Raises ImageError for the first unreadable image.
        """
        if not isinstance(image, list | tuple):
            return rank_classes(self.network.probabilities(_open_named(image)[None])[0], self.classes)
        rows = list(self.predict_iter(image))
        for number, row in enumerate(rows):
            if row.prediction is None:
                raise ImageError(f"image {number}{f' ({row.path})' if row.path else ''}: {row.error}")
        return [row.prediction for row in rows if row.prediction]

    def predict_iter(self, sources: Iterable[ImageSource], opener: Opener = open_pixels) -> Iterator[PredictRow]:
        """Classify any number of images in order, in constant memory. An unreadable image yields a row with the reason.

        Images are decoded while the network runs. Consecutive images of one size form a batch. Raises UsageError, with the first
        row, if `sources` is a single path, bytes or a PIL image.
        """
        if isinstance(sources, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
            raise UsageError("one image is given, and predict_iter takes several", "Give a list, or call predict")
        for source, result in predict_stream(self.network, sources, opener):
            path = str(source) if isinstance(source, str | Path) else ""
            yield PredictRow(path, None, result) if isinstance(result, str) else PredictRow(path, rank_classes(result, self.classes))


def _open_named(source: ImageSource) -> np.ndarray:
    """Open an image; the error names its file."""
    try:
        return open_pixels(source)
    except ImageError as error:
        if isinstance(source, str | Path):
            raise ImageError(f"{source}: {error.message}", error.hint) from None
        raise


def load(reference: str | Path, out: str = "exports", verify: bool = True, tta: str = "", on_event: OnEvent = ignore_event) -> Classifier:
    """Load a classifier from a run folder, `exports/<task>` (its latest run), a task name, a run id, a bundle folder, a `model.onnx`, or the hub.

    On the hub it is `hf://user/name` or `hf://user/name@revision`. No pickle is opened. With `verify`, every file of the run is compared with the SHA-256
    recorded at export. `tta` is the kind of test-time augmentation of a file that `tlfast export --tta` has written. Raises RunError, or UsageError for
    another kind.
    """
    path, run = find_model(reference, out, verify, tta, on_event)
    network = open_network(path)
    return Classifier(network, run or network.info.get("run", ""))


def find_model(reference: str | Path, out: str = "exports", verify: bool = True, tta: str = "", on_event: OnEvent = ignore_event) -> tuple[Path, str]:
    """Return the ONNX file that `load` opens, and the id of its run, "" if only the file knows it. Arguments and errors are those of `load`."""
    path, file = Path(os.path.expanduser(reference)), name_file(tta)
    if (path / EXAMPLE_FILE).is_file() and not (path / MANIFEST).is_file():  # a bundle; a run that has lost its manifest is refused below
        path = path / file
        if not path.is_file():
            hint = (
                f"Write it, tlfast export RUN --tta {tta}, and then the bundle again, with --to FOLDER"
                if tta
                else "Write the bundle again: tlfast export RUN --to FOLDER"
            )
            raise RunError(f"{reference} has no {file}", hint)
    if path.suffix == ".onnx":
        if tta and path.name != file:
            raise UsageError(f"--tta {tta} is given for the file {reference}", f"Leave it out, or give the folder with {file}")
        return path, ""
    is_on_hub = hub.is_hub_reference(str(reference))
    run = hub.fetch_run(str(reference), (*hub.RECORD, file), verify, on_event) if is_on_hub else runs.find(str(reference), out, verify)
    if not (run.folder / file).is_file():
        if is_on_hub:
            wanted = f"tlfast export RUN --tta {tta}" if tta else "by a training without --no-onnx"
            raise RunError(f"{reference} has no {file}", f"Ask its owner to write it, {wanted}, and to push the run again")
        missing = "The run was trained with --no-onnx or by an older tlfast; train again without --no-onnx"
        raise RunError(f"{run.folder} has no {file}", f"Write it first: tlfast export {runs.refer_to(run)} --tta {tta}" if tta else missing)
    return run.folder / file, "" if is_on_hub else run.id
