"""`tlfast predict` and `tlfast.load`: an exported classifier answers for images. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from ..core import runs
from ..core.errors import ImageError, RunError
from ..data import images
from ..data.discovery import is_address
from .onnx_model import FILE, Network, Opener, open_network, predict_stream, rank_classes
from .types import Prediction, PredictRow

ImageSource = str | Path | bytes | Image.Image | np.ndarray


def open_pixels(source: ImageSource, network: bool = True, allow_private: bool = False) -> np.ndarray:
    """Open an image as uint8 RGB `[h, w, 3]`, from an http(s) address too if `network` says so. Raises ImageError."""
    if isinstance(source, str) and is_address(source):
        if not network:
            raise ImageError("an address, and --no-network is given")
        from ..data.fetch import fetch  # ssl and http take longer to import than a prediction

        source = fetch(source, allow_private)
    return np.asarray(images.open_image(source))


@dataclass(frozen=True)
class Classifier:
    """A trained classifier, ready to predict; any number of threads may share it. `run` is its run's id."""

    network: Network
    run: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of the network's outputs."""
        return self.network.classes

    @property
    def info(self) -> Mapping[str, str]:
        """What the export says of itself: task, run, arch, size, resize, weights and their licence, tlfast's version."""
        return self.network.info

    @overload
    def predict(self, image: ImageSource) -> Prediction: ...

    @overload
    def predict(self, image: list[ImageSource]) -> list[Prediction]: ...

    def predict(self, image: ImageSource | list[ImageSource]) -> Prediction | list[Prediction]:
        """Classify one image, or each of a list: a path or http(s) address, an image file's bytes, a PIL image, or a uint8 array
        `[h, w]`, `[h, w, 3]` or `[h, w, 4]`.

        Raises ImageError, at the first of a list that cannot be read.
        """
        if not isinstance(image, list):
            return rank_classes(self.network.probabilities(open_pixels(image)[None])[0], self.classes)
        rows = list(self.predict_iter(image))
        for number, row in enumerate(rows):
            if row.prediction is None:
                raise ImageError(f"image {number}{f' ({row.path})' if row.path else ''}: {row.error}")
        return [row.prediction for row in rows if row.prediction]

    def predict_iter(self, sources: Iterable[ImageSource], opener: Opener = open_pixels) -> Iterator[PredictRow]:
        """Classify any number of images in their order, in constant memory; one that cannot be read gives a row with the reason.

        Images are decoded while the network runs, and neighbours of one size are run together.
        """
        for source, answer in predict_stream(self.network, sources, opener):
            name = str(source) if isinstance(source, str | Path) else ""
            yield PredictRow(name, None, answer) if isinstance(answer, str) else PredictRow(name, rank_classes(answer, self.classes))


def load(reference: str | Path, out: str = "exports", verify: bool = True) -> Classifier:
    """Load a classifier from a run folder, `exports/<task>`, a task's name, a run id, or a `model.onnx` by itself.

    No pickle is opened. Unless `verify` is off, each file of a run is compared with the SHA-256 written when it was exported. Raises RunError.
    """
    if str(reference).endswith(".onnx"):
        network = open_network(Path(reference))
        return Classifier(network, network.info.get("run", ""))
    run = runs.find(str(reference), out, verify)
    if not (run.folder / FILE).is_file():
        raise RunError(f"{run.folder} has no {FILE}", "It was trained with --no-onnx, or by an older tlfast: train again")
    return Classifier(open_network(run.folder / FILE), run.id)
