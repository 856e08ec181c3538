"""`tlfast export`: further files of a run's network, evaluated before they are kept, and a bundle that works without tlfast."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import DataError, ExportError, ImageError, OnEvent, Progress, RunError, RunRecord, UsageError, ignore_event, runs
from ..core.run_files import IMAGES_FILE, ONNX_FILE
from ..data import Row, images
from ..data.records import read_records
from ..data.unpacking import explain_missing
from ..evaluation.calibration import choose_temperature, log_loss
from ..export import FORMATS, Export, Format, PortableExport, write_bundle
from ..export.bundle import check_target
from ..inference import Network, open_network
from ..inference.onnx_model import VIEWS, batch_size, name_file
from .file_predictions import RESTORE_HINT, predict_file, read_pixels

CALIBRATED_ON = 256  # training images
MAX_DROP = 0.01  # of accuracy; a format with a larger drop is refused
ROUNDS = 7  # of timing
HUB_HINT = "Export the file where the run was trained, and push the run again"


@dataclass(frozen=True)
class ExportResult:
    """Result of `tlfast export`.

    Attributes:
        run: id of the run.
        exports: smaller or more accurate ONNX files that were written into the run.
        portable: files for other runtimes that were written into the run.
        bundle: path of the bundle, "" for none.
    """

    run: str
    exports: list[Export]
    portable: list[PortableExport]
    bundle: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        quantize: "int8" for a network with 8-bit weights, or "".
        half: whether to write a network with 16-bit floats.
        tta: kind of test-time augmentation, or "".
        format: name of a format for another runtime, a key of `PORTABLE`, or "".
        opset: ONNX opset of `format`, 0 for the default.
        to: path of a bundle, a folder or a file that ends in .zip, or "".
        allow_drop: whether to keep smaller files that lose more than one percentage point of accuracy, and augmentation without a gain.
    """

    quantize: str = ""
    half: bool = False
    tta: str = ""
    format: str = ""
    opset: int = 0
    to: str = ""
    allow_drop: bool = False

    def list_formats(self) -> list[str]:
        """Return the names in `FORMATS`. Raises UsageError for an invalid value, or if nothing is asked for."""
        if self.quantize not in ("", "int8"):
            raise UsageError(f"--quantize '{self.quantize}' is not int8", "Use --quantize int8, or --half for 16-bit floats")
        name_file(self.tta)  # raises UsageError for another word
        formats = [name for name, wanted in (("int8", self.quantize), ("fp16", self.half), (f"tta-{self.tta}", self.tta)) if wanted]
        if self.opset and not self.format:
            raise UsageError(f"--opset {self.opset} is given without --format", "Add --format onnx-resized, or leave it out")
        if not formats and not self.to and not self.format:
            raise UsageError("nothing to export", "Use --quantize int8, --half, --tta flip, --format torchscript, --to FOLDER or --to FILE.zip")
        return formats


def export_run(run: RunRecord, request: ExportRequest, on_event: OnEvent = ignore_event) -> ExportResult:
    """Write the network of a run in further formats into the run, then a bundle.

    Each file of `FORMATS` is evaluated on the run's valid split, beside `model.onnx`; a file for another runtime is compared with the network. Raises
    ExportError if a smaller file loses more than one percentage point of accuracy, or test-time augmentation gains nothing, unless `allow_drop`, and for a
    file that differs from the network; UsageError if a file exists; RunError or DataError if files of the run or its images are missing.
    """
    formats, target = request.list_formats(), Path(os.path.expanduser(request.to))  # a shell does not expand --to=~/bundle
    if not (run.folder / ONNX_FILE).is_file():
        raise RunError(f"{run.folder} has no {ONNX_FILE}", "It was trained with --no-onnx, or by an older version: train again")
    open_network(run.folder / ONNX_FILE)  # raises RunError for a damaged file
    if request.to:
        check_target(target)
    if formats or request.format:
        runs.require_images(run, HUB_HINT)
    for name in formats:
        check_absent(run, FORMATS[name].file)
    if request.format:
        from ..export.portable import check_portable  # loads torch
        from .export_portable import add_portable

        chosen = check_portable(request.format, request.opset)
    exports, portable = [], []
    for number, name in enumerate(formats, start=1):
        try:
            run, export = _add_format(run, FORMATS[name], request.allow_drop, on_event)
        except ExportError as error:
            rest = [FORMATS[other].file for other in formats[number:]] + [part for part in (request.format, request.to) if part]
            raise ExportError(error.message + (f"; not begun: {', '.join(rest)}" if rest else ""), error.hint) from error
        exports.append(export)
    if request.format:
        run, added = add_portable(run, chosen, request.opset, on_event)
        portable.append(added)
    return ExportResult(run.id, exports, portable, str(write_bundle(run, target)) if request.to else "")


def check_absent(run: RunRecord, name: str) -> None:
    """Raise UsageError if a run has a file of this name."""
    if (run.folder / name).exists():
        raise UsageError(f"{run.folder / name} exists already", "Move it away first; files are never overwritten")


# Further formats


def _add_format(run: RunRecord, chosen: Format, allow_drop: bool, on_event: OnEvent) -> tuple[RunRecord, Export]:
    """Write the network in one format, evaluate it, and add it to the run. Returns the run with its new manifest."""
    source, rows = run.folder / ONNX_FILE, read_images_of_run(run)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".export.") as scratch:
        target = Path(scratch) / chosen.file
        chosen.write(source, target, _calibration_images(rows, on_event))
        export = _evaluate_file(run, source, target, select_split(rows, "valid"), on_event)
        if chosen.augments:
            from ..export.tta import set_temperature  # loads onnx

            set_temperature(target, export.temperature)
        if not allow_drop:
            (_check_gain if chosen.augments else _check_drop)(export)
        return runs.add_files(run, [target], asdict(export)), export


def _check_drop(export: Export) -> None:
    drop = export.accuracy_before - export.accuracy
    if drop > MAX_DROP:
        raise ExportError(
            f"{export.file} would lose {100 * drop:.1f} points of accuracy ({export.accuracy_before:.4f} to {export.accuracy:.4f})",
            "Use model.onnx, or accept the loss with --allow-drop",
        )


def _check_gain(export: Export) -> None:
    if export.accuracy < export.accuracy_before or export.log_loss >= export.log_loss_before:
        accuracies = f"accuracy {export.accuracy_before:.4f} to {export.accuracy:.4f}"
        raise ExportError(
            f"{export.file} would gain nothing on the valid split ({accuracies}, log loss {export.log_loss_before:.4f} to {export.log_loss:.4f})",
            "Use model.onnx, or keep it nevertheless with --allow-drop",
        )


def _calibration_images(rows: Sequence[Row], on_event: OnEvent) -> Iterator[np.ndarray]:
    """Yield the pixels `[h, w, 3]` of training images, evenly spaced. Raises DataError if files are missing."""
    train = select_split(rows, "train")  # sorted by class
    sample = [train[round(i)] for i in np.linspace(0, len(train) - 1, min(len(train), CALIBRATED_ON))]
    for done, row in enumerate(sample, start=1):
        on_event(Progress("calibrating", done, len(sample)))
        pixels = _try_read(row)
        if pixels is not None:  # else damaged since the training; the other images suffice
            yield pixels


# Evaluation


def _evaluate_file(run: RunRecord, source: Path, target: Path, rows: Sequence[Row], on_event: OnEvent) -> Export:
    """Compare accuracy, log loss, speed and size of the file `target` with those of `source`."""
    paths, temperature = (source, target), run.temperature
    networks = [open_network(path) for path in paths]
    scores = [_score(network, rows, f"evaluating {path.name}", on_event) for network, path in zip(networks, paths, strict=True)]
    rates = _measure_rates(networks, rows)
    size, size_before = target.stat().st_size, source.stat().st_size
    return Export(
        file=target.name,
        megabytes=size / 1e6,
        share_of_size=size / size_before,
        images=len(rows),
        accuracy=scores[1].accuracy,
        accuracy_before=scores[0].accuracy,
        log_loss=scores[1].log_loss,
        log_loss_before=scores[0].log_loss,
        images_per_second=rates[1],
        images_per_second_before=rates[0],
        temperature=scores[1].temperature if VIEWS in networks[1].info else temperature,
    )


@dataclass(frozen=True)
class _Score:
    """Accuracy, log loss with temperatures fitted on other images, and the temperature fitted on all images, relative to that of the file."""

    accuracy: float
    log_loss: float
    temperature: float


def _score(network: Network, rows: Sequence[Row], phase: str, on_event: OnEvent) -> _Score:
    """Evaluate a network; an unreadable image counts as an error, and has no log loss."""
    readable, log_probabilities = predict_file(network, rows, phase, on_event)
    numbers = {name: number for number, name in enumerate(network.classes)}
    labels = np.array([numbers[row.label] for row in readable])
    choice = choose_temperature(log_probabilities, labels)
    accuracy = int((log_probabilities.argmax(axis=1) == labels).sum()) / len(rows)
    return _Score(accuracy, log_loss(choice.held_out, labels), choice.temperature)


def _measure_rates(networks: Sequence[Network], rows: Sequence[Row]) -> list[float]:
    """Return images per second of each network: median over rounds, in which the networks take turns with a batch of the first readable image."""
    pixels = next(pixels for row in rows if (pixels := _try_read(row)) is not None)
    batch = np.repeat(pixels[None], batch_size(pixels), axis=0)
    seconds: list[list[float]] = [[] for _ in networks]
    for _ in range(ROUNDS + 1):  # the first round allocates memory and is left out
        for network, of_network in zip(networks, seconds, strict=True):
            started = time.perf_counter()
            network.probabilities(batch)
            of_network.append(time.perf_counter() - started)
    return [len(batch) / statistics.median(of_network[1:]) for of_network in seconds]


# Images of the run


def read_images_of_run(run: RunRecord) -> list[Row]:
    """Return the images of a run, as listed in its `images.csv`. Raises DataError for a run from the hub, which has no list."""
    runs.require_images(run, HUB_HINT)
    _, records = read_records(run.folder / IMAGES_FILE)
    return [Row(record["path"], record["label"], record["split"]) for record in records]


def select_split(rows: Sequence[Row], split: str) -> list[Row]:
    """Return the rows of a split. Raises DataError if it is empty or if files are missing."""
    selected = [row for row in rows if row.split == split]
    missing = [row.path for row in selected if not os.path.exists(images.split_archive(row.path)[0])]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(selected)} {split} images are missing, the first: {missing[0]}", explain_missing(missing[0]) or RESTORE_HINT
        )
    if not selected:
        raise DataError(f"no {split} images", RESTORE_HINT)
    return selected


def _try_read(row: Row) -> np.ndarray | None:
    """Return the pixels `[h, w, 3]` of an image, None if it is unreadable."""
    try:
        return read_pixels(row)
    except ImageError:
        return None
