"""An exported classifier as one ONNX file: it holds preprocessing, network, classes and what else must be known; here it is opened and run."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime

from ..core.errors import ImageError, RunError, first_line
from ..core.system import count_cores
from .types import Prediction

ERRORS_ONLY = 3  # onnxruntime's log level; its warnings are about its own optimisations
FILE = "model.onnx"
INPUT, OUTPUT = "images", "probabilities"
BATCH = 32  # images of one size that are run together
AHEAD = 64 << 20  # bytes of decoded images that may wait for the network

T = TypeVar("T")
Opener = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Network:
    """An ONNX file opened. Any number of threads may use it at once. `info` is all that the file says of itself."""

    session: onnxruntime.InferenceSession
    classes: tuple[str, ...]
    info: Mapping[str, str]

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """RGB images of one size, uint8 `[b, h, w, 3]`, to probabilities float32 `[b, c]`."""
        return self.session.run([OUTPUT], {INPUT: pixels})[0]


def open_network(path: Path) -> Network:
    """Open `model.onnx`, to run on all cores. Raises RunError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = count_cores()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        info = dict(session.get_modelmeta().custom_metadata_map)
        return Network(session, tuple(json.loads(info["classes"])), info)
    except Exception as error:  # onnxruntime has many of its own, all of them RuntimeErrors or Exceptions
        raise RunError(f"{path} cannot be opened ({first_line(error)})", "Name a model.onnx that tlfast exported; tlfast runs lists the runs") from error


def predict_stream(network: Network, sources: Iterable[T], opener: Opener) -> Iterator[tuple[T, np.ndarray | str]]:
    """Yield (source, probabilities `[c]` or the reason why there are none) of any number of images in their order, in constant memory.

    `opener` gives an image's pixels, uint8 RGB `[h, w, 3]`, or raises ImageError; it runs in threads while the network runs. Neighbours of
    one size are run together.
    """
    waiting: list[tuple[T, np.ndarray]] = []
    for source, opened in _decode_ahead(sources, opener):
        if waiting and (isinstance(opened, str) or opened.shape != waiting[0][1].shape or len(waiting) >= predict_batch(opened)):
            yield from _predict_batch(network, waiting)
            waiting = []
        if isinstance(opened, str):
            yield source, opened
        else:
            waiting.append((source, opened))
    if waiting:
        yield from _predict_batch(network, waiting)


def _predict_batch(network: Network, waiting: Sequence[tuple[T, np.ndarray]]) -> list[tuple[T, np.ndarray | str]]:
    probabilities = network.probabilities(np.stack([pixels for _, pixels in waiting]))
    return [(source, row) for (source, _), row in zip(waiting, probabilities, strict=True)]


def _decode_ahead(sources: Iterable[T], opener: Opener) -> Iterator[tuple[T, np.ndarray | str]]:
    """Yield (source, pixels or the reason why there are none) of each image in order, decoding ahead in threads within AHEAD bytes."""
    remaining, largest = iter(sources), AHEAD  # the first images may be of any size: only as many as threads are begun
    ahead: deque[tuple[T, Future]] = deque()
    with ThreadPoolExecutor(count_cores()) as pool:
        try:
            while True:
                room = min(2 * BATCH, max(count_cores(), AHEAD // largest)) - len(ahead)
                ahead.extend((source, pool.submit(_try_open, opener, source)) for source in islice(remaining, max(0, room)))
                if not ahead:
                    return
                source, future = ahead.popleft()
                opened = future.result()
                if isinstance(opened, np.ndarray):
                    largest = opened.nbytes if largest == AHEAD else max(largest, opened.nbytes)
                yield source, opened
        finally:
            for _, future in ahead:
                future.cancel()


def predict_batch(pixels: np.ndarray) -> int:
    """Return how many images of this size are run together: large photographs one by one."""
    return min(BATCH, max(1, AHEAD // pixels.nbytes))


def _try_open(opener: Opener, source: T) -> np.ndarray | str:
    try:
        return opener(source)
    except ImageError as error:
        return error.message


def rank_classes(probabilities: np.ndarray, classes: Sequence[str]) -> Prediction:
    """Return probabilities `[c]` as a Prediction, likeliest class first; of equals the first class first."""
    order = {classes[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
    label = next(iter(order))
    return Prediction(label, order[label], order)
