"""`tlfast predict`: classify files, folders, tables and addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..core.errors import UsageError
from ..core.events import Note, OnEvent, Progress, ignore_event
from ..data.discovery import STDIN, gather_sources, watch_folder
from ..inference.classifier import Classifier, open_pixels
from ..inference.onnx_model import Opener
from ..inference.types import PredictRow
from ..inference.writers import open_writer


@dataclass(frozen=True)
class Request:
    """What one `predict` command asks for. `files` are the results to write: kind (csv, jsonl, parquet) -> path."""

    sources: Sequence[str]
    column: str = "path"
    files: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    least: float = 0.0  # a probability below which the label is "unsure"
    watch: str = ""
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
        kept = [stack.enter_context(open_writer(kind, path, classifier.classes, request.least, request.resume)) for kind, path in kinds.items()]
        finished = set.intersection(*(done for done, _ in kept)) if kept else set()
        if finished:
            on_event(Note("predicting", f"{len(finished):,} images were done before"))
        for row in _filter_finished(classifier, request, finished, opener, on_event):
            for done, keep in kept:
                if row.path not in done:
                    keep(row)
            yield row


def _filter_finished(classifier: Classifier, request: Request, finished: set[str], opener: Opener, on_event: OnEvent) -> Iterator[PredictRow]:
    if request.watch:
        with suppress(KeyboardInterrupt):  # its end, which is as good as any
            for path in watch_folder(request.watch):
                if path not in finished:
                    yield from classifier.predict_iter([path], opener)
        return
    names, total = _list_names(request)
    for done, row in enumerate(classifier.predict_iter((name for name in names if name not in finished), opener), start=1):
        on_event(Progress("predicting", done, total - len(finished)))
        yield row


def _list_names(request: Request) -> tuple[Iterable[str], int]:
    """Return the images' names, and how many: counted beforehand, but a list on stdin, which can be read only once, is held."""
    if STDIN in request.sources:
        held = list(gather_sources(request.sources, request.column, sys.stdin))
        total, names = len(held), iter(held)
    else:
        total, names = sum(1 for _ in gather_sources(request.sources, request.column)), gather_sources(request.sources, request.column)
    if not total:
        raise UsageError("no images in " + ", ".join(request.sources), "Give image files, folders or zips of them, patterns in quotes, or a CSV file")
    return names, total
