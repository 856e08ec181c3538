"""`tlfast predict` and `tlfast.load`: an exported classifier answers for images. Nothing here needs torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
from PIL import Image

from .core import runs
from .core.errors import ImageError, RunError, UsageError
from .core.events import Event, OnEvent, ignore_event
from .data import images
from .data.discovery import STDIN, gather_sources, is_address, watch_folder
from .inference import FILE, Network, Opener, answers, open_network, ranked
from .recording import recording
from .results import Prediction, PredictRow

ImageSource = str | Path | bytes | Image.Image | np.ndarray


def open_pixels(source: ImageSource, network: bool = True, allow_private: bool = False) -> np.ndarray:
    """Open an image as uint8 RGB `[h, w, 3]`, from an http(s) address too if `network` says so. Raises ImageError."""
    if isinstance(source, str) and is_address(source):
        if not network:
            raise ImageError("an address, and --no-network is given")
        from .data.fetch import fetch  # ssl and http take longer to import than a prediction

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
            return ranked(self.network.probabilities(open_pixels(image)[None])[0], self.classes)
        rows = list(self.predict_iter(image))
        for number, row in enumerate(rows):
            if row.prediction is None:
                raise ImageError(f"image {number}{f' ({row.path})' if row.path else ''}: {row.error}")
        return [row.prediction for row in rows if row.prediction]

    def predict_iter(self, sources: Iterable[ImageSource], opener: Opener = open_pixels) -> Iterator[PredictRow]:
        """Classify any number of images in their order, in constant memory; one that cannot be read gives a row with the reason.

        Images are decoded while the network runs, and neighbours of one size are run together.
        """
        for source, answer in answers(self.network, sources, opener):
            name = str(source) if isinstance(source, str | Path) else ""
            yield PredictRow(name, None, answer) if isinstance(answer, str) else PredictRow(name, ranked(answer, self.classes))


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


@dataclass(frozen=True)
class Request:
    """What one `predict` command asks for. `files` are the results to write: kind (csv, jsonl, parquet) -> path."""

    sources: Sequence[str]
    column: str = "path"
    files: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    least: float = 0.0  # a probability below which the label is "unsure"
    watch_folder: str = ""
    network: bool = True
    allow_private: bool = False


def predict(classifier: Classifier, request: Request, on_event: OnEvent = ignore_event) -> Iterator[PredictRow]:
    """Classify whatever the request's sources name, in that order, each row as soon as it is there; keep them in the files asked for.

    An image that cannot be read gives a row with the reason. With `watch` it goes on for ever. Raises UsageError, DataError or, where a file
    cannot be written, TlfastError.
    """
    opener = partial(open_pixels, network=request.network, allow_private=request.allow_private)
    with ExitStack() as stack:
        kinds = {kind: Path(path) for kind, path in request.files.items() if path}
        if len(set(kinds.values())) < len(kinds):
            raise UsageError("two of --csv, --jsonl and --parquet name the same file", "Give each a file of its own")
        if request.resume and not kinds:
            raise UsageError("--resume goes on with a file, and none is named", "Name it again with --csv, --jsonl or --parquet")
        kept = [stack.enter_context(recording(kind, path, classifier.classes, request.least, request.resume)) for kind, path in kinds.items()]
        finished = set.intersection(*(done for done, _ in kept)) if kept else set()
        if finished:
            on_event(Event("predicting", note=f"{len(finished):,} images were done before"))
        for row in _asked(classifier, request, finished, opener, on_event):
            for done, keep in kept:
                if row.path not in done:
                    keep(row)
            yield row


def _asked(classifier: Classifier, request: Request, finished: set[str], opener: Opener, on_event: OnEvent) -> Iterator[PredictRow]:
    if request.watch:
        with suppress(KeyboardInterrupt):  # its end, which is as good as any
            for path in watch_folder(request.watch):
                if path not in finished:
                    yield from classifier.predict_iter([path], opener)
        return
    names, total = _names(request)
    for done, row in enumerate(classifier.predict_iter((name for name in names if name not in finished), opener), start=1):
        on_event(Event("predicting", done, total - len(finished)))
        yield row


def _names(request: Request) -> tuple[Iterable[str], int]:
    """Return the images' names, and how many: counted beforehand, but a list on stdin, which can be read only once, is held."""
    if STDIN in request.sources:
        held = list(gather_sources(request.sources, request.column, sys.stdin))
        total, names = len(held), iter(held)
    else:
        total, names = sum(1 for _ in gather_sources(request.sources, request.column)), gather_sources(request.sources, request.column)
    if not total:
        raise UsageError("no images in " + ", ".join(request.sources), "Give image files, folders or zips of them, patterns in quotes, or a CSV file")
    return names, total
