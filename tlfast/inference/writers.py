"""Predictions kept as they are made: a log beside the file that was asked for, which becomes that file when all is done.

A command that was killed leaves its log, and `--resume` goes on behind its last whole line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import TlfastError, UsageError
from ..core.files import move_file
from .onnx_model import rank_classes
from .types import PredictRow

PARTIAL = ".partial"
UNSURE = "unsure"
ROWS = 10_000  # of a parquet file, that are written together


@contextmanager
def open_writers(kind: str, target: Path, classes: Sequence[str], least: float, resume: bool) -> Iterator[tuple[set[str], Callable[[PredictRow], None]]]:
    """Give the paths that an interrupted command has done already, and a function that keeps a row; write `target` when the block ends well.

    `kind` is csv, jsonl or parquet. Rows less probable than `least` are labelled "unsure". Raises UsageError where something would be
    overwritten, TlfastError where it cannot be written.
    """
    log = target.with_name(target.name + PARTIAL)
    _check_path(kind, target, log, resume)
    with _convert_os_errors(kind, target):
        done = _read_finished(log)
        file = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (closed below)

    def keep(row: PredictRow) -> None:
        with _convert_os_errors(kind, target):
            file.write(_read_line(row, classes))

    try:
        yield done, keep
    finally:
        with _convert_os_errors(kind, target):
            file.close()  # which writes what is left in its buffer
    with _convert_os_errors(kind, target):
        _publish(kind, target, log, classes, least)


def _publish(kind: str, target: Path, log: Path, classes: Sequence[str], least: float) -> None:
    """Make the file that was asked for out of its log: whole or absent."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        FORMATS[kind](temporary, _read_log(log, classes), classes, least)
        move_file(temporary, target)
        log.unlink()
    finally:
        temporary.unlink(missing_ok=True)


def as_dict(row: PredictRow, top: int | None = None, least: float = 0.0) -> dict[str, Any]:
    """Return a row for JSON, with its `top` likeliest classes, or all of them."""
    if row.prediction is None:
        return {"path": row.path, "error": row.error}
    likely = dict(islice(row.prediction.probabilities.items(), top))
    return {"path": row.path, "label": label_of(row, least), "probability": row.prediction.probability, "probabilities": likely}


def label_of(row: PredictRow, least: float) -> str:
    """Return a row's label, "unsure" where it is less probable than `least`, "" where there is none."""
    if row.prediction is None:
        return ""
    return row.prediction.label if row.prediction.probability >= least else UNSURE


def _check_path(kind: str, target: Path, log: Path, resume: bool) -> None:
    if target.exists() and resume and not log.exists():
        raise UsageError(f"--{kind} {target}: it is finished, nothing is left to go on with", "Name another file to predict anew; nothing is overwritten")
    if target.exists():
        raise UsageError(f"--{kind} {target}: the file exists already", "Name another; nothing is overwritten")
    if log.exists() and not resume:
        raise UsageError(f"--{kind}: {log} is left of a command that was interrupted", "Go on with it by --resume, or name another file")


@contextmanager
def _convert_os_errors(kind: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TlfastError(f"--{kind} {target}: {error.strerror or error}", "Name a file in a folder that can be written and has room") from None


def _read_line(row: PredictRow, classes: Sequence[str]) -> str:
    p = row.prediction
    values = {"path": row.path, "p": [p.probabilities[name] for name in classes]} if p else {"path": row.path, "error": row.error}
    return json.dumps(values) + "\n"  # ASCII, whatever bytes a file name has


def _read_finished(log: Path) -> set[str]:
    """Return the paths in a log, without its last line if that was cut off; it is taken away from the file."""
    with suppress(FileNotFoundError), open(log, "r+b") as file:
        done, whole = set(), 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            done.add(json.loads(line)["path"])
            whole += len(line)
        file.truncate(whole)
        return done
    return set()


def _read_log(log: Path, classes: Sequence[str]) -> Iterator[PredictRow]:
    with open(log, encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            prediction = rank_classes(np.array(values["p"]), classes) if "p" in values else None
            yield PredictRow(values["path"], prediction, values.get("error", ""))


def _write_csv(target: Path, rows: Iterable[PredictRow], classes: Sequence[str], least: float) -> None:
    with open(target, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(_column_names(classes))
        writer.writerows(_row_cells(row, classes, least) for row in rows)


def _write_jsonl(target: Path, rows: Iterable[PredictRow], classes: Sequence[str], least: float) -> None:
    with open(target, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(json.dumps(as_dict(row, None, least), ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(target: Path, rows: Iterable[PredictRow], classes: Sequence[str], least: float) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = _column_names(classes)
    schema = pa.schema([(name, pa.string() if name in names[:2] or name == "error" else pa.float32()) for name in names])
    remaining = iter(rows)
    with open(target, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        while block := list(islice(remaining, ROWS)):
            columns = zip(*(_row_cells(row, classes, least, missing=None) for row in block), strict=True)
            writer.write_table(pa.table(dict(zip(names, map(list, columns), strict=True)), schema))


FORMATS: dict[str, Callable[[Path, Iterable[PredictRow], Sequence[str], float], None]] = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}


def _column_names(classes: Sequence[str]) -> list[str]:
    return ["path", "label", "probability", "error", *(f"p({name})" for name in classes)]


def _row_cells(row: PredictRow, classes: Sequence[str], least: float, missing: str | None = "") -> list[Any]:
    p = row.prediction
    numbers = [p.probability, *(p.probabilities[name] for name in classes)] if p else [missing] * (len(classes) + 1)
    return [row.path, label_of(row, least), numbers[0], row.error, *numbers[1:]]
