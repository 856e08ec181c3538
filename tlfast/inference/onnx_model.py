"""Run an exported classifier with ONNX Runtime. `model.onnx` holds preprocessing, network, classes and metadata."""

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

from ..core import ImageError, RunError, UsageError
from ..core.errors import first_line, suggest_name
from ..core.run_files import ONNX_FILE
from ..core.system import assume_free_memory, count_cores, load_average
from .types import Prediction

ERRORS_ONLY = 3  # log level of onnxruntime; its warnings concern its own optimizations
INPUT, OUTPUT = "images", "probabilities"
BATCH = 32  # largest batch
TTA = ("flip", "crops")  # kinds of test-time augmentation, with files of their own
VIEWS = "views"  # in the metadata: number of views of an image in such a file
BUSY = 0.5  # least load average of the last minute on a machine in use
SPINNING = "session.intra_op.allow_spinning"  # whether threads wait actively; see docs/benchmarks.md, "Busy machine"
AHEAD = 64 << 20  # bytes of one batch, and of the decoded images in the queue, which may hold one per core nevertheless
DECODING = 4  # memory for decoding an image, as a multiple of its array

T = TypeVar("T")
Opener = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Network:
    """An open ONNX file. Thread-safe. `info` is the metadata of the file. A pickled network is opened again from `path`."""

    session: onnxruntime.InferenceSession
    classes: tuple[str, ...]
    info: Mapping[str, str]
    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return open_network, (self.path,)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Map RGB images of one size, uint8 `[b, h, w, 3]`, to probabilities, float32 `[b, c]`."""
        step = max(1, BATCH // int(self.info.get(VIEWS, 1)))  # so that all views of a step are at most BATCH images
        parts = [self.session.run([OUTPUT], {INPUT: pixels[start : start + step]})[0] for start in range(0, max(1, len(pixels)), step)]
        return np.concatenate(parts) if len(parts) > 1 else np.asarray(parts[0])


def name_file(tta: str = "") -> str:
    """Return the name of the ONNX file of a run, that with test-time augmentation if `tta` is one of TTA. Raises UsageError for another word.

    >>> name_file(), name_file("flip")
    ('model.onnx', 'model.tta-flip.onnx')
    """
    if tta and tta not in TTA:
        raise UsageError(f"--tta '{tta}' is not one of: {', '.join(TTA)}", suggest_name(tta, TTA))
    return f"model.tta-{tta}.onnx" if tta else ONNX_FILE


def open_network(path: Path) -> Network:
    """Open a `model.onnx` on the CPU, with one thread per core. Raises RunError.

    If the cores were in use during the last minute, the threads do not wait actively for each other.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = count_cores()
    if load_average() >= BUSY:
        options.add_session_config_entry(SPINNING, "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        info = dict(session.get_modelmeta().custom_metadata_map)
        return Network(session, tuple(json.loads(info["classes"])), info, path.absolute())
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        raise RunError(f"{path} cannot be opened ({first_line(error)})", "Give a model.onnx exported by tlfast; `tlfast runs` lists the runs") from error


def predict_stream(network: Network, sources: Iterable[T], opener: Opener) -> Iterator[tuple[T, np.ndarray | str]]:
    """Yield (source, probabilities `[c]`) of any number of images in order, in constant memory.

    `opener` returns the pixels of an image, uint8 RGB `[h, w, 3]`, or raises ImageError; then the reason takes the place of the
    probabilities. It runs in threads while the network runs. Consecutive images of one size form a batch.
    """
    batch: list[tuple[T, np.ndarray]] = []
    for source, pixels in _decode_ahead(sources, opener):
        if batch and (isinstance(pixels, str) or pixels.shape != batch[0][1].shape or len(batch) >= batch_size(pixels)):
            yield from _predict_batch(network, batch)
            batch = []
        if isinstance(pixels, str):
            yield source, pixels
        else:
            batch.append((source, pixels))
    if batch:
        yield from _predict_batch(network, batch)


def _predict_batch(network: Network, batch: Sequence[tuple[T, np.ndarray]]) -> list[tuple[T, np.ndarray | str]]:
    probabilities = network.probabilities(np.stack([pixels for _, pixels in batch]))  # [b, c]
    return [(source, row) for (source, _), row in zip(batch, probabilities, strict=True)]


def _decode_ahead(sources: Iterable[T], opener: Opener) -> Iterator[tuple[T, np.ndarray | str]]:
    """Yield (source, pixels or error message) of each image in order. Threads decode ahead."""
    remaining = iter(sources)
    largest, memory = 0, int(assume_free_memory())  # bytes of the largest image so far, and of the free memory
    queue: deque[tuple[T, Future[np.ndarray | str]]] = deque()
    with ThreadPoolExecutor(count_cores()) as pool:
        try:
            while True:
                room = _count_ahead(largest, memory) - len(queue)
                queue.extend((source, pool.submit(_try_open, opener, source)) for source in islice(remaining, max(0, room)))
                if not queue:
                    return
                source, future = queue.popleft()
                pixels = future.result()
                if isinstance(pixels, np.ndarray):
                    largest = max(largest, pixels.nbytes)
                yield source, pixels
        finally:
            for _, future in queue:
                future.cancel()


def _count_ahead(largest: int, memory: int) -> int:
    """Return the number of images to decode ahead if the largest has `largest` bytes: as many as AHEAD holds, or one per core, within half of the memory.

    Before the size of an image is known, and at least, it is two.
    """
    if not largest:
        return 2
    return min(2 * BATCH, max(2, AHEAD // largest, min(count_cores(), memory // (2 * DECODING * largest))))


def batch_size(pixels: np.ndarray) -> int:
    """Return the batch size for images as large as this one: at most BATCH images and AHEAD bytes.

    >>> batch_size(np.zeros((224, 224, 3), np.uint8)), batch_size(np.zeros((4000, 6000, 3), np.uint8))
    (32, 1)
    """
    return min(BATCH, max(1, AHEAD // pixels.nbytes))


def _try_open(opener: Opener, source: T) -> np.ndarray | str:
    try:
        return opener(source)
    except ImageError as error:
        return error.message


def rank_classes(probabilities: np.ndarray, classes: Sequence[str]) -> Prediction:
    """Return probabilities `[c]` as a Prediction, most probable class first. Ties keep the order of `classes`.

    >>> rank_classes(np.array([0.25, 0.75]), ["ant", "bee"])
    Prediction(label='bee', probability=0.75, probabilities={'bee': 0.75, 'ant': 0.25})
    """
    values = probabilities.tolist()
    ranked = {classes[i]: values[i] for i in np.argsort(-probabilities, kind="stable").tolist()}
    label = next(iter(ranked))
    return Prediction(label, ranked[label], ranked)
