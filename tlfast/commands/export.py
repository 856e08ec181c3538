"""`tlfast export`: smaller forms of a run's network, judged before they are kept, and a bundle that needs no tlfast."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..core import runs
from ..core.errors import DataError, ExportError, ImageError, RunError, UsageError
from ..core.events import OnEvent, Progress, ignore_event
from ..core.runs import Run
from ..data import images
from ..data.discovery import read_records
from ..data.types import Row
from ..export.bundle import FORMS, check_free, write_bundle
from ..export.types import Export
from ..inference.onnx_model import BATCH, FILE, Network, open_network, predict_stream

CALIBRATED_ON = 256  # training images
MOST_LOST = 0.01  # of accuracy, before a form is refused
ROUNDS = 7


def export_run(run: Run, forms: Sequence[str], to: str = "", allow_drop: bool = False, on_event: OnEvent = ignore_event) -> ExportResult:
    """Make smaller forms ("int8", "fp16") of a run's network beside it, then a bundle at `to`: a folder, or a file that ends in .zip.

    Each form is judged on the run's valid part beside `model.onnx`. Raises ExportError where it loses more than a point of accuracy, unless
    `allow_drop`; UsageError where something would be overwritten; RunError or DataError where the run or its images are not there.
    """
    if not (run.folder / FILE).is_file():
        raise RunError(f"{run.folder} has no {FILE}", "It was trained with --no-onnx, or by an older tlfast: train again")
    if to:
        check_free(Path(to))
    for form in forms:
        if (run.folder / FORMS[form]).exists():
            raise UsageError(f"{run.folder / FORMS[form]} exists already", "Nothing is overwritten: move it away first")
    made = []
    for form in forms:
        run, export = _make_form(run, form, allow_drop, on_event)
        made.append(export)
    return ExportResult(run.id, made, str(write_bundle(run, Path(to))) if to else "")


def _make_form(run: Run, form: str, allow_drop: bool, on_event: OnEvent) -> tuple[Run, Export]:
    from ..export import quantize  # onnx and the quantiser take a second to import

    source, rows = run.folder / FILE, _read_rows(run)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".export.") as scratch:
        target = Path(scratch) / FORMS[form]
        if form == "int8":
            quantize.quantize_int8(source, target, _calibration_rows(_read_part(rows, "train"), on_event))
        else:
            quantize.convert_fp16(source, target)
        export = _judge_form(source, target, _read_part(rows, "valid"), on_event)
        lost = export.accuracy_before - export.accuracy
        if lost > MOST_LOST and not allow_drop:
            raise ExportError(
                f"{FORMS[form]} would lose {100 * lost:.1f} points of accuracy ({export.accuracy_before:.4f} to {export.accuracy:.4f})",
                "Keep model.onnx, or take it all the same with --allow-drop",
            )
        return runs.add_file(run, FORMS[form], target, asdict(export)), export


def _judge_form(source: Path, target: Path, rows: Sequence[Row], on_event: OnEvent) -> Export:
    networks = [open_network(path) for path in (source, target)]
    accuracies = [_measure_accuracy(network, rows, f"judging {path.name}", on_event) for network, path in zip(networks, (source, target), strict=True)]
    rates = _measure_rates(networks, rows)
    size, before = target.stat().st_size, source.stat().st_size
    return Export(target.name, size / 1e6, size / before, len(rows), accuracies[1], accuracies[0], rates[1], rates[0])


def _measure_accuracy(network: Network, rows: Sequence[Row], phase: str, on_event: OnEvent) -> float:
    """Return the share of images that are called what they are; one that cannot be read is not."""
    right = 0
    for done, (row, answer) in enumerate(predict_stream(network, rows, _read_pixels), start=1):
        right += not isinstance(answer, str) and network.classes[int(answer.argmax())] == row.label
        on_event(Progress(phase, done, len(rows)))
    return right / len(rows)


def _measure_rates(networks: Sequence[Network], rows: Sequence[Row]) -> list[float]:
    """Return each network's images a second on one batch, in turns, the median of some."""
    first = _read_pixels(rows[0])
    batch = np.repeat(first[None], BATCH, axis=0)
    seconds: list[list[float]] = [[] for _ in networks]
    for _ in range(ROUNDS + 1):  # the first round is slow, for memory is allocated
        for network, own in zip(networks, seconds, strict=True):
            started = time.perf_counter()
            network.probabilities(batch)
            own.append(time.perf_counter() - started)
    return [BATCH / statistics.median(own[1:]) for own in seconds]


def _calibration_rows(rows: Sequence[Row], on_event: OnEvent) -> Iterator[np.ndarray]:
    """Yield the pixels of training images, spread over all of them."""
    chosen = rows[:: max(1, len(rows) // CALIBRATED_ON)]
    for done, row in enumerate(islice(chosen, CALIBRATED_ON), start=1):
        on_event(Progress("calibrating", done, min(len(chosen), CALIBRATED_ON)))
        try:
            yield _read_pixels(row)
        except ImageError:  # it was readable when the run was trained; the others are enough
            continue


def _read_pixels(row: Row) -> np.ndarray:
    return np.asarray(images.open_image(row.path))


def _read_rows(run: Run) -> list[Row]:
    """Return the images of a run, as its `images.csv` lists them."""
    _, found = read_records(run.folder / "images.csv")
    return [Row(record["path"], record["label"], record["split"]) for record in found]


def _read_part(rows: Sequence[Row], split: str) -> list[Row]:
    part = [row for row in rows if row.split == split]
    missing = [row.path for row in part if not os.path.exists(images.split_zip(row.path)[0])]
    if not part or missing:
        found = f"{len(missing)} of the {len(part)} {split} images are not there, the first: {missing[0]}" if missing else f"no {split} images"
        raise DataError(found, "Bring the images back to where the run was trained on them")
    return part


# The bundle


@dataclass(frozen=True)
class ExportResult:
    """What `tlfast export` made: files in the run, and where a portable bundle lies ("" for none)."""

    run: str
    exports: list[Export]
    bundle: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
