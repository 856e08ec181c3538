"""`tlfast predict`: classify files, folders, tables and URLs. Loads no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from ..core import Note, OnEvent, Progress, UsageError, ignore_event
from ..core.files import hash_file
from ..data.discovery import STDIN, gather_sources, may_be_table, watch_folder
from ..data.left_out import LeftOut
from ..data.parquet_images import describe_other_columns
from ..inference import Classifier, PredictRow, open_writer
from ..inference.classifier import open_pixels
from ..inference.onnx_model import Opener
from ..inference.writers import Origin, log_of, read_log


@dataclass(frozen=True)
class PredictRequest:
    """What to classify, and where to write the predictions.

    Attributes:
        sources: files, folders, zips, patterns, CSV files, URLs, or "-" for a list on stdin.
        column: column of paths in CSV files.
        files: format (csv, jsonl, parquet) -> path of a file to write; "" for none.
        resume: continue the files of an interrupted command.
        min_prob: probability below which the label is "unsure".
        watch: folder to classify new images of, in place of `sources`.
        network: allow downloads, and lists of remote folders.
        allow_private: allow downloads from private networks.
    """

    sources: Sequence[str]
    column: str = "path"
    files: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    min_prob: float = 0.0
    watch: str = ""
    network: bool = True
    allow_private: bool = False


def predict_sources(classifier: Classifier, request: PredictRequest, on_event: OnEvent = ignore_event) -> Iterator[PredictRow]:
    """Classify the images of the request and yield their rows in order, each as soon as it is ready; also write them to `request.files`.

    With `resume`, the rows that the interrupted command has written come first, so that totals count all images.
    The row of an unreadable image holds the reason. With `watch`, the iterator ends at Ctrl-C only. Raises UsageError, DataError, or TlfastError if
    a file cannot be written.
    """
    opener = partial(open_pixels, network=request.network, allow_private=request.allow_private)
    targets = _check_files(request)
    file = classifier.network.path
    origin = Origin(classifier.run, classifier.classes, file.name, hash_file(file) if targets else "")
    open_one = partial(open_writer, origin=origin, min_probability=request.min_prob, resume=request.resume, on_event=on_event)
    for path in filter(None, request.files.values()):
        if Path(path) not in targets.values():
            on_event(Note("predicting", f"{path} is complete already"))
    with ExitStack() as stack:
        writers = [stack.enter_context(open_one(kind, target)) for kind, target in targets.items()]
        finished = set.intersection(*(written for written, _ in writers)) if writers else set()
        if finished:
            on_event(Note("predicting", f"{len(finished):,} images are in the files already"))
            kind, target = next(iter(targets.items()))
            logged = read_log(kind, target, classifier.classes, f"reading {log_of(target).name}", on_event)
            if request.watch:  # which prints each image as it arrives
                for written, _ in writers:
                    written -= finished  # a later row of the same path is that of a changed file
                readable = {row.path: row.prediction is not None for row in logged if row.path in finished}
                finished = {path for path in finished if readable[path]}  # other files may have been incomplete
            else:
                yield from (row for row in logged if row.path in finished)
        for row in _predict_unfinished(classifier, request, finished, opener, on_event):
            for written, write in writers:
                if row.path not in written:
                    write(row)
                elif request.watch:
                    written.remove(row.path)  # the row after this one is that of a changed file
            yield row


def _check_files(request: PredictRequest) -> dict[str, Path]:
    """Return the files to write by their format. Raises UsageError."""
    targets = {kind: Path(path) for kind, path in request.files.items() if path}
    for kind, path in request.files.items():
        if path == STDIN:
            raise UsageError(f"--{kind} - names no file", "Name a file; for another program, --json prints the predictions")
    places = {path.absolute().resolve() for path in targets.values()}
    if len(places | {log_of(place) for place in places if place.name}) < 2 * len(targets):
        raise UsageError("two of --csv, --jsonl and --parquet name the same file", "Give each its own file")
    if request.resume and not targets:
        raise UsageError("--resume continues a file, but no file is given", "Repeat --csv, --jsonl or --parquet of the interrupted command")
    if request.resume:  # of several files, those that are complete need nothing; if all are, `open_writer` says so
        return {kind: path for kind, path in targets.items() if not path.is_file() or log_of(path).exists()} or targets
    return targets


def _predict_unfinished(classifier: Classifier, request: PredictRequest, finished: set[str], opener: Opener, on_event: OnEvent) -> Iterator[PredictRow]:
    if request.watch:
        on_event(Progress("watching", 0, 0))
        with suppress(KeyboardInterrupt):  # the usual end of watching
            for path in watch_folder(request.watch):
                if path in finished:
                    finished.remove(path)  # if it comes again, the file has changed
                else:
                    yield from classifier.predict_iter([path], opener)
        return
    left_out = LeftOut()
    names, total = _list_names(request, left_out)
    for note in describe_sources(request.sources, request.column, left_out):
        on_event(Note("predicting", note))
    unfinished = (name for name in names if name not in finished)
    for done, row in enumerate(classifier.predict_iter(unfinished, opener), start=1):
        on_event(Progress("predicting", done, total - len(finished)))
        yield row


def _list_names(request: PredictRequest, left_out: LeftOut) -> tuple[Iterable[str], int]:
    """Return the names of the images, and their number; add the other files and folders to `left_out`.

    Sources are walked twice instead of held in memory, except stdin.
    """
    if STDIN in request.sources:
        listed = list(gather_sources(request.sources, request.column, sys.stdin or (), left_out, request.network))  # None if it is closed
        total, names = len(listed), iter(listed)
    else:
        gather = partial(gather_sources, request.sources, request.column, network=request.network)
        total, names = sum(1 for _ in gather(left_out=left_out)), gather()
    _check_found(total, request.sources)
    return names, total


def _check_found(total: int, sources: Sequence[str]) -> None:
    if not total:
        raise UsageError("no images in " + ", ".join(sources), "Give image files, folders or zips of them, patterns in quotes, or a CSV file")


def list_images(sources: Sequence[str], column: str) -> tuple[list[str], list[str]]:
    """Return the images of sources, and the notes of `describe_sources`. Raises UsageError if there are none."""
    left_out = LeftOut()
    names = list(gather_sources(sources, column, left_out=left_out))
    _check_found(len(names), sources)
    return names, describe_sources(sources, column, left_out)


def describe_sources(sources: Sequence[str], column: str, left_out: LeftOut) -> list[str]:
    """Return notes on files and folders that are left out, on columns of images that are not used, and on a `column` without effect."""
    files = [Path(source) for source in sources if os.path.isfile(source)]  # Path.is_file raises OSError for a name that is too long
    notes = [*left_out.describe(), *chain.from_iterable(describe_other_columns(path, column, "--column") for path in files)]
    has_effect = column == PredictRequest.column or any(map(may_be_table, sources))
    return notes if has_effect else [*notes, f"--column {column} has no effect, because no source is a table"]
