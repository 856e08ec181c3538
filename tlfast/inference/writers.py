"""Write predictions to CSV, JSON Lines or parquet, with resume.

Rows are appended to a log, `<target>.partial`, and converted to the target at the end. The first line of the log names the network and its classes. A
killed command leaves its log; `--resume` continues after its last complete line.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core import OnEvent, Progress, TlfastError, UsageError, ignore_event
from ..core.files import lock_open_file, move_file, replace_undecodable
from ..core.run_files import probability_column
from .onnx_model import rank_classes
from .types import PredictRow

PARTIAL = ".partial"
UNSURE = "unsure"
MAX_ROWS, MAX_CELLS = 10_000, 2_000_000  # of a row group in a parquet file, which is in memory while it is written
REPORTED_BYTES = 1 << 20  # of a log, between two events of progress
ROW_START = b'{"path": '  # of the line of an image in a log
DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Origin:
    """The network of predictions: id of its run, classes, and the name and SHA-256 of its file. "" where something is unknown."""

    run: str
    classes: Sequence[str]
    file: str = ""
    sha256: str = ""


@contextmanager
def open_writer(
    kind: str, target: Path, origin: Origin, min_probability: float, resume: bool, on_event: OnEvent = ignore_event
) -> Iterator[tuple[set[str], Callable[[PredictRow], None]]]:
    """Open a file of predictions for writing: a context manager of (finished, write).

    `finished` is the set of paths already in the log of an interrupted command; `write` appends a row. `target` is written when the block ends
    without an error. `kind` is csv, jsonl or parquet. Predictions below `min_probability` are labelled "unsure". Raises UsageError if a file
    would be overwritten, or if the log is that of another network; TlfastError if the file cannot be written. After an error the log stays, unless it has
    no row.
    """
    if not target.name or target.is_dir():
        raise UsageError(f"--{kind} {target}: this is a folder", "Give the name of a file")
    log = log_of(target)
    _check_path(kind, target, log, resume)
    with _convert_os_errors(kind, target):
        file = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed below)
        try:
            lock_open_file(file, UsageError(f"--{kind}: {log} is being written by another command", "Wait for it, or give another file name"))
            _check_incomplete(kind, target)  # another command may have completed it since
            begun, finished = _read_start(kind, log, on_event)
            _check_origin(kind, log, begun, origin)
            if not log.stat().st_size:
                file.write(json.dumps({**asdict(origin), "classes": list(origin.classes)}) + "\n")
        except BaseException:
            file.close()
            raise

    is_empty, is_complete = not finished, False

    def write(row: PredictRow) -> None:
        nonlocal is_empty
        is_empty = False
        with _convert_os_errors(kind, target):
            file.write(_format_log_line(row, origin.classes))

    try:
        yield finished, write
        with _convert_os_errors(kind, target):
            file.flush()
            _publish(kind, target, origin.classes, min_probability, on_event)  # while the log is locked
        is_complete = True
    finally:
        with _convert_os_errors(kind, target):
            file.close()  # flushes its buffer, so it can fail
            if is_empty or is_complete:  # there is nothing to continue
                log.unlink(missing_ok=True)


def log_of(target: Path) -> Path:
    """Return the path of the log of a file of predictions."""
    return target.with_name(target.name + PARTIAL)


def _publish(kind: str, target: Path, classes: Sequence[str], min_probability: float, on_event: OnEvent) -> None:
    """Convert the log to the target atomically."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        WRITERS[kind](temporary, read_log(kind, target, classes, f"writing {target.name}", on_event), classes, min_probability)
        move_file(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def as_dict(row: PredictRow, top: int | None = None, min_probability: float = 0.0) -> dict[str, Any]:
    """Return a row as a dict for JSON, with the `top` most probable classes, or all of them."""
    if row.prediction is None:
        return {"path": row.path, "error": row.error}
    probabilities = dict(list(row.prediction.probabilities.items())[:top])
    return {"path": row.path, "label": label_of(row, min_probability), "probability": row.prediction.probability, "probabilities": probabilities}


def label_of(row: PredictRow, min_probability: float) -> str:
    """Return the label of a row, "unsure" below `min_probability`, or "" without a prediction."""
    if row.prediction is None:
        return ""
    return row.prediction.label if row.prediction.probability >= min_probability else UNSURE


def _check_path(kind: str, target: Path, log: Path, resume: bool) -> None:
    if resume and not log.exists():
        _check_incomplete(kind, target)
    if target.exists():
        raise UsageError(f"--{kind} {target}: the file exists already", "Give another file name; nothing is overwritten")
    if log.exists() and not resume:
        raise UsageError(f"--{kind}: {log} is the log of an interrupted command", "Add --resume to continue, or give another file name")


def _check_incomplete(kind: str, target: Path) -> None:
    if target.exists():
        raise UsageError(f"--{kind} {target}: the file is complete", "Give another file name; nothing is overwritten")


@contextmanager
def _convert_os_errors(kind: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TlfastError(f"--{kind} {target}: {error.strerror or error}", f"Give --{kind} a file in a writable folder with free disk space") from None


def _format_log_line(row: PredictRow, classes: Sequence[str]) -> str:
    prediction = row.prediction
    if prediction:
        values: dict[str, Any] = {"path": row.path, "p": [prediction.probabilities[name] for name in classes]}
    else:
        values = {"path": row.path, "error": row.error}
    return json.dumps(values) + "\n"  # ASCII, whatever bytes a file name has


def _check_origin(kind: str, log: Path, begun: Mapping[str, Any], origin: Origin) -> None:
    """Raise UsageError if a log is that of another network. `begun` is its first line, empty or without the file for a log of an earlier version."""
    if begun and (begun["run"], begun["classes"]) != (origin.run, list(origin.classes)):
        name = begun["run"] or "that of a model.onnx file"
        raise UsageError(f"--{kind}: {log} was begun with another run, {name}", "Continue it with that run, or give another file name")
    if (begun.get("sha256") or origin.sha256) != origin.sha256:
        hint = "Continue it with that network, as by the same --tta, or give another file name"
        raise UsageError(f"--{kind}: {log} was begun with another network, {begun.get('file')}", hint)


def _read_start(kind: str, log: Path, on_event: OnEvent) -> tuple[dict[str, Any], set[str]]:
    """Return the first line of a log, if it names a run, and the paths of all images in it. An incomplete last line is removed from the file."""
    with suppress(FileNotFoundError), open(log, "r+b") as file:
        origin: dict[str, Any] = {}
        finished, size = set(), 0
        for line in _follow(file, f"reading {log.name}", on_event):
            if not line.endswith(b"\n"):  # the last one
                continue
            values = _parse_log_line(kind, log, line, only_path=True)
            if "path" in values:
                finished.add(values["path"])
            else:
                origin = values
            size += len(line)
        file.truncate(size)
        return origin, finished
    return {}, set()


def _follow(file: BinaryIO, phase: str, on_event: OnEvent) -> Iterator[bytes]:
    """Yield the lines of a log. The progress counts bytes."""
    size, done, reported = os.fstat(file.fileno()).st_size, 0, 0
    for line in file:
        yield line
        done += len(line)
        if done - reported >= REPORTED_BYTES or done == size:
            on_event(Progress(phase, done, size))
            reported = done


def _parse_log_line(kind: str, log: Path, line: bytes, only_path: bool = False) -> dict[str, Any]:
    """Return one line of a log; with `only_path`, that of an image without its probabilities. Raises UsageError if tlfast has not written it."""
    try:
        is_row = only_path and line.startswith(ROW_START)
        values = {"path": DECODER.raw_decode(line.decode(), len(ROW_START))[0]} if is_row else json.loads(line)
        if isinstance(values, dict) and (isinstance(values.get("path"), str) or (isinstance(values.get("classes"), list) and "run" in values)):
            return values
    except ValueError:
        pass
    raise UsageError(f"--{kind}: {log} is not a log of tlfast", "Move it away, or give another file name")


def read_log(kind: str, target: Path, classes: Sequence[str], phase: str, on_event: OnEvent) -> Iterator[PredictRow]:
    """Yield the rows in the log of a file of predictions, as long as the file is not complete. `phase` is the text of the progress events."""
    log = log_of(target)
    with open(log, "rb") as file:
        for line in _follow(file, phase, on_event):
            values = _parse_log_line(kind, log, line)
            if "path" not in values:  # the first line
                continue
            prediction = rank_classes(np.array(values["p"]), classes) if "p" in values else None
            yield PredictRow(values["path"], prediction, values.get("error", ""))


def _write_csv(target: Path, rows: Iterable[PredictRow], classes: Sequence[str], min_probability: float) -> None:
    with open(target, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(column_names(classes))
        writer.writerows(row_cells(row, classes, min_probability) for row in rows)


def _write_jsonl(target: Path, rows: Iterable[PredictRow], classes: Sequence[str], min_probability: float) -> None:
    with open(target, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(as_dict(row, None, min_probability), ensure_ascii=False) + "\n" for row in rows)


def write_parquet(
    target: Path,
    rows: Iterable[PredictRow],
    classes: Sequence[str],
    min_probability: float,
    describe: Callable[[], Mapping[bytes, bytes]] = dict,
) -> None:
    """Write a table of predictions. `describe` is called after the last row and returns metadata of the file."""
    import pyarrow as pa
    from pyarrow import parquet

    names = column_names(classes)
    schema = pa.schema([(name, pa.string() if name in names[:2] or name == "error" else pa.float32()) for name in names])
    remaining, size = iter(rows), max(1, min(MAX_ROWS, MAX_CELLS // len(names)))
    with open(target, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while block := list(islice(remaining, size)):
            readable = (replace(row, path=replace_undecodable(row.path)) for row in block)
            columns = zip(*(row_cells(row, classes, min_probability, missing=None) for row in readable), strict=True)
            writer.write_table(pa.table(dict(zip(names, map(list, columns), strict=True)), schema))
        writer.add_key_value_metadata(describe())


WRITERS: dict[str, Callable[[Path, Iterable[PredictRow], Sequence[str], float], None]] = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": write_parquet}


def column_names(classes: Sequence[str]) -> list[str]:
    """Return the columns of a table of predictions."""
    return ["path", "label", "probability", "error", *map(probability_column, classes)]


def row_cells(row: PredictRow, classes: Sequence[str], min_probability: float = 0.0, missing: str | None = "") -> list[Any]:
    """Return the cells of a row in the order of `column_names`; `missing` takes the place of the numbers without a prediction."""
    prediction = row.prediction
    values: list[Any] = [prediction.probability, *(prediction.probabilities[name] for name in classes)] if prediction else []
    numbers = values or [missing] * (len(classes) + 1)
    return [row.path, label_of(row, min_probability), numbers[0], row.error, *numbers[1:]]
