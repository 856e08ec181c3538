"""Sharded predictions: a folder with a list of images and one parquet file for each shard of it, written by any number of processes.

`answers/_predictions.json` describes the work, `answers/_manifest/` lists the images, and `answers/part-00017-of-00256.parquet` holds the predictions of one
shard. Each part is written under another name and renamed, and names the model and its images in its metadata: a repeated command skips valid parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ..core import DataError, ImageError, RunError, UsageError
from ..core.files import hash_file, write_text_atomic
from ..data.images import split_archive
from .classifier import Classifier, open_pixels
from .manifest import Input, describe_input, read_manifest, read_staged
from .onnx_model import open_network, predict_stream, rank_classes
from .types import PredictRow
from .writers import label_of, write_parquet

DESCRIPTION = "_predictions.json"
DRAFT = ".draft"  # suffix of parts while the images are being listed
METADATA = b"tlfast"  # key in the metadata of a part
CHANGED = "the file was changed or removed since the images were listed"


@dataclass(frozen=True)
class ShardedWork:
    """What is to be predicted, the same for all processes.

    Attributes:
        run: id of the run.
        model: SHA-256 of the ONNX file.
        classes: the labels.
        sources: what was given as images.
        column: column of paths in tables.
        base: working directory, at which relative paths begin.
        images: number of images, 0 while they are being listed.
        shards: number of parts, 0 while it is open.
        per_shard: number of images of each part but the last; 0: all parts have the same number, up to one.
        min_prob: probability below which the label is "unsure".
        network: allow downloads, and lists of remote folders.
        allow_private: allow downloads from private networks.
    """

    run: str
    model: str
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    column: str
    base: str
    images: int
    shards: int
    min_prob: float = 0.0
    network: bool = True
    allow_private: bool = False
    per_shard: int = 0

    def range_of(self, shard: int) -> tuple[int, int]:
        """Return the first image of a shard, and the first of the next one.

        >>> [ShardedWork("", "", (), (), "", "", images=10, shards=3).range_of(shard) for shard in range(3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        if self.per_shard:
            return shard * self.per_shard, min((shard + 1) * self.per_shard, self.images)
        return shard * self.images // self.shards, (shard + 1) * self.images // self.shards


@dataclass(frozen=True)
class ShardResult:
    """Result of one shard.

    Attributes:
        shard: its number.
        labels: number of images of each label, "unsure" included.
        failed: number of unreadable images.
        reused: whether an earlier command had written it.
    """

    shard: int
    labels: dict[str, int]
    failed: int
    reused: bool = False


def name_part(shard: int, shards: int) -> str:
    """Return the file name of a shard's predictions.

    >>> name_part(17, 256)
    'part-00017-of-00256.parquet'
    """
    return f"part-{shard:05d}-of-{shards:05d}.parquet"


def write_description(folder: Path, work: ShardedWork) -> None:
    """Write the description of the work into its folder."""
    write_text_atomic(folder / DESCRIPTION, json.dumps(asdict(work), indent=1) + "\n")


def read_description(folder: Path) -> ShardedWork | None:
    """Return the description of the work in a folder, None if there is none. Raises RunError if it is damaged."""
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return ShardedWork(**{**values, "classes": tuple(values["classes"]), "sources": tuple(values["sources"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path} is damaged ({error})", "Give another --out-dir") from None


def predict_shard(folder: Path, model: Path, shard: int, on_image: Callable[[int], object] | None = None) -> ShardResult:
    """Predict the images of a shard and write its part, unless a valid one exists. `on_image` is called with the number of predicted images.

    Raises UsageError if the ONNX file is not that of the work.
    """
    work = read_description(folder)
    if work is None:
        raise RunError(f"{folder} has no {DESCRIPTION}", "Repeat the command that began it")
    if finished := read_part(folder, work, shard):
        return finished
    return _write_part(folder / name_part(shard, work.shards), model, work, shard, list(read_manifest(folder, *work.range_of(shard))), on_image)


def predict_listed(folder: Path, model: Path, work: ShardedWork, chunk: int, on_image: Callable[[int], object] | None = None) -> ShardResult:
    """Predict one file of a list that is still being written, unless it was done before. `rename_drafts` names the result when the list is complete."""
    target, inputs = folder / name_draft(chunk), read_staged(folder, chunk)
    return _read_file(target, work, chunk, len(inputs), inputs) or _write_part(target, model, work, chunk, inputs, on_image)


def name_draft(shard: int) -> str:
    """Return the file name of a part while the number of all parts is not known.

    >>> name_draft(17)
    '.part-00017.draft'
    """
    return f".part-{shard:05d}{DRAFT}"


def rename_drafts(folder: Path, work: ShardedWork) -> None:
    """Give the drafts of a complete list the names of parts. Those beyond it, of a list that was longer once, are removed."""
    for path in sorted(folder.glob(f".part-*{DRAFT}")):
        shard = int(path.name.removeprefix(".part-").removesuffix(DRAFT))
        if shard < work.shards:
            os.replace(path, folder / name_part(shard, work.shards))
        else:
            path.unlink()


def _write_part(target: Path, model: Path, work: ShardedWork, shard: int, inputs: list[Input], on_image: Callable[[int], object] | None = None) -> ShardResult:
    _check_reachable(inputs, shard)
    classifier = _open_model(str(model), model.stat().st_mtime_ns, work.model, work.run)
    labels: Counter[str] = Counter()
    failed = 0

    def count(rows: Iterator[PredictRow]) -> Iterator[PredictRow]:
        nonlocal failed
        for done, row in enumerate(rows, start=1):
            if on_image:
                on_image(done)
            failed += row.prediction is None
            labels.update([label_of(row, work.min_prob)] if row.prediction else [])
            yield row

    temporary = target.parent / f".{target.name.lstrip('.')}.{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        rows = count(_predict(classifier, inputs, work))
        write_parquet(temporary, rows, work.classes, work.min_prob, lambda: _describe_part(work, inputs, labels, failed))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return ShardResult(shard, dict(labels), failed)


def _check_reachable(inputs: Iterable[Input], shard: int) -> None:
    """Raise DataError if no folder of the images is there, as on a machine that lacks them: a part with errors only would be kept."""
    listed = [given.path for given in inputs if given.bytes >= 0]
    folders = dict.fromkeys(os.path.dirname(split_archive(path)[0]) or "." for path in listed)
    if folders and not any(map(os.path.isdir, folders)):
        found = f"the folders of all {len(listed):,} images of part {shard} are missing on {socket.gethostname()}, such as that of {listed[0]}"
        raise DataError(found, "Mount them there, and repeat the command; if they were removed, give another --out-dir")


def read_part(folder: Path, work: ShardedWork, shard: int) -> ShardResult | None:
    """Return the result of a shard whose part exists and belongs to this work and these images, else None."""
    start, stop = work.range_of(shard)
    return _read_file(folder / name_part(shard, work.shards), work, shard, stop - start, read_manifest(folder, start, stop))


def _read_file(path: Path, work: ShardedWork, shard: int, count: int, inputs: Iterable[Input]) -> ShardResult | None:
    """Return the result in a file if it belongs to this work and to these `count` images, else None."""
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_metadata(path)
        facts = json.loads((metadata.metadata or {})[METADATA])
        if facts["model"] != work.model or metadata.num_rows != count or facts["inputs"] != hash_inputs(inputs):
            return None
        return ShardResult(shard, facts["labels"], facts["failed"], reused=True)
    except (OSError, ValueError, KeyError, TypeError, ArrowException):
        return None


def hash_inputs(inputs: Iterable[Input]) -> str:
    """Return the SHA-256 (hex) of the paths, sizes and times of images."""
    digest = hashlib.sha256()
    for each in inputs:
        digest.update(os.fsencode(each.path) + f"\0{each.bytes}\0{each.modified}\n".encode())
    return digest.hexdigest()


def _describe_part(work: ShardedWork, inputs: list[Input], labels: dict[str, int], failed: int) -> dict[bytes, bytes]:
    facts = {"run": work.run, "model": work.model, "inputs": hash_inputs(inputs), "labels": labels, "failed": failed, "written": time.strftime("%FT%T%z")}
    return {METADATA: json.dumps(facts).encode()}


@lru_cache(maxsize=1)
def _open_model(path: str, modified: int, expected: str, run: str) -> Classifier:
    """Open an ONNX file once for all shards of this process. Raises UsageError if it is not that of the work."""
    if hash_file(Path(path)) != expected:
        raise UsageError(f"{path} is not the model that the predictions were begun with", "Give another --out-dir for another model")
    return Classifier(open_network(Path(path)), run)


def _predict(classifier: Classifier, inputs: list[Input], work: ShardedWork) -> Iterator[PredictRow]:
    opener = partial(_open_unchanged, work=work)
    for given, result in predict_stream(classifier.network, inputs, opener):
        yield PredictRow(given.path, None, result) if isinstance(result, str) else PredictRow(given.path, rank_classes(result, classifier.classes))


def _open_unchanged(given: Input, work: ShardedWork) -> np.ndarray:
    """Open an image. Raises ImageError, also if its file is another one than when it was listed."""
    if describe_input(given.path) != given:
        raise ImageError(CHANGED)
    return open_pixels(given.path, network=work.network, allow_private=work.allow_private)
