"""`tlfast export`: smaller forms of a run's network, judged before they are kept, and a bundle that needs no tlfast."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np

from .core import runs
from .core.errors import DataError, ExportError, ImageError, RunError, UsageError
from .core.events import Event, OnEvent, ignore_event
from .core.runs import METRICS, Run
from .data import images
from .data.discovery import read_records
from .data.types import Row
from .inference import BATCH, FILE, Network, answers, open_network
from .outcomes import ExportResult
from .results import Export

FORMS = {"int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
CALIBRATED_ON = 256  # training images
MOST_LOST = 0.01  # of accuracy, before a form is refused
ROUNDS = 7
EXAMPLE = """import json, sys
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
photo = sys.argv[1] if len(sys.argv) > 1 else sys.exit("usage: python example.py photo.jpg")
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
(probabilities,) = session.run(None, {"images": np.asarray(image)[None]})
for probability, name in sorted(zip(probabilities[0].tolist(), classes), reverse=True)[:5]:
    print(f"{probability:7.2%}  {name}")
"""


def export(run: Run, forms: Sequence[str], to: str = "", allow_drop: bool = False, on_event: OnEvent = ignore_event) -> ExportResult:
    """Make smaller forms ("int8", "fp16") of a run's network beside it, then a bundle at `to`: a folder, or a file that ends in .zip.

    Each form is judged on the run's valid part beside `model.onnx`. Raises ExportError where it loses more than a point of accuracy, unless
    `allow_drop`; UsageError where something would be overwritten; RunError or DataError where the run or its images are not there.
    """
    if not (run.folder / FILE).is_file():
        raise RunError(f"{run.folder} has no {FILE}", "It was trained with --no-onnx, or by an older tlfast: train again")
    if to:
        _check_free(Path(to))
    for form in forms:
        if (run.folder / FORMS[form]).exists():
            raise UsageError(f"{run.folder / FORMS[form]} exists already", "Nothing is overwritten: move it away first")
    made = []
    for form in forms:
        run, export = _made(run, form, allow_drop, on_event)
        made.append(export)
    return ExportResult(run.id, made, str(bundle(run, Path(to))) if to else "")


def _made(run: Run, form: str, allow_drop: bool, on_event: OnEvent) -> tuple[Run, Export]:
    from . import quantising  # onnx and the quantiser take a second to import

    source, rows = run.folder / FILE, _rows(run)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".export.") as scratch:
        target = Path(scratch) / FORMS[form]
        if form == "int8":
            quantising.int8(source, target, _calibration(_part(rows, "train"), on_event))
        else:
            quantising.fp16(source, target)
        export = _judged(source, target, _part(rows, "valid"), on_event)
        lost = export.accuracy_before - export.accuracy
        if lost > MOST_LOST and not allow_drop:
            raise ExportError(
                f"{FORMS[form]} would lose {100 * lost:.1f} points of accuracy ({export.accuracy_before:.4f} to {export.accuracy:.4f})",
                "Keep model.onnx, or take it all the same with --allow-drop",
            )
        return runs.add_file(run, FORMS[form], target, asdict(export)), export


def _judged(source: Path, target: Path, rows: Sequence[Row], on_event: OnEvent) -> Export:
    networks = [open_network(path) for path in (source, target)]
    accuracies = [_accuracy(network, rows, f"judging {path.name}", on_event) for network, path in zip(networks, (source, target), strict=True)]
    rates = _rates(networks, rows)
    size, before = target.stat().st_size, source.stat().st_size
    return Export(target.name, size / 1e6, size / before, len(rows), accuracies[1], accuracies[0], rates[1], rates[0])


def _accuracy(network: Network, rows: Sequence[Row], phase: str, on_event: OnEvent) -> float:
    """Return the share of images that are called what they are; one that cannot be read is not."""
    right = 0
    for done, (row, answer) in enumerate(answers(network, rows, _pixels), start=1):
        right += not isinstance(answer, str) and network.classes[int(answer.argmax())] == row.label
        on_event(Event(phase, done, len(rows)))
    return right / len(rows)


def _rates(networks: Sequence[Network], rows: Sequence[Row]) -> list[float]:
    """Return each network's images a second on one batch, in turns, the median of some."""
    first = _pixels(rows[0])
    batch = np.repeat(first[None], BATCH, axis=0)
    seconds: list[list[float]] = [[] for _ in networks]
    for _ in range(ROUNDS + 1):  # the first round is slow, for memory is allocated
        for network, own in zip(networks, seconds, strict=True):
            started = time.perf_counter()
            network.probabilities(batch)
            own.append(time.perf_counter() - started)
    return [BATCH / statistics.median(own[1:]) for own in seconds]


def _calibration(rows: Sequence[Row], on_event: OnEvent) -> Iterator[np.ndarray]:
    """Yield the pixels of training images, spread over all of them."""
    chosen = rows[:: max(1, len(rows) // CALIBRATED_ON)]
    for done, row in enumerate(islice(chosen, CALIBRATED_ON), start=1):
        on_event(Event("calibrating", done, min(len(chosen), CALIBRATED_ON)))
        try:
            yield _pixels(row)
        except ImageError:  # it was readable when the run was trained; the others are enough
            continue


def _pixels(row: Row) -> np.ndarray:
    return np.asarray(images.open_image(row.path))


def _rows(run: Run) -> list[Row]:
    """Return the images of a run, as its `images.csv` lists them."""
    _, found = read_records(run.folder / "images.csv")
    return [Row(record["path"], record["label"], record["split"]) for record in found]


def _part(rows: Sequence[Row], split: str) -> list[Row]:
    part = [row for row in rows if row.split == split]
    missing = [row.path for row in part if not os.path.exists(images.split_zip(row.path)[0])]
    if not part or missing:
        found = f"{len(missing)} of the {len(part)} {split} images are not there, the first: {missing[0]}" if missing else f"no {split} images"
        raise DataError(found, "Bring the images back to where the run was trained on them")
    return part


# The bundle


def bundle(run: Run, target: Path) -> Path:
    """Write `model.onnx`, the smaller forms that there are, a README, an example that needs no tlfast, and their SHA-256; return where."""
    files = {name: (run.folder / name).read_bytes() for name in (FILE, *FORMS.values()) if (run.folder / name).is_file()}
    files |= {"README.md": _readme(run).encode(), "example.py": EXAMPLE.encode()}
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            filled = Path(scratch) / target.name
            (_zip if target.suffix.lower() == ".zip" else _folder)(filled, files)
            os.replace(filled, target)  # whole or absent
    except OSError as error:
        raise ExportError(f"--to {target}: {error.strerror or error}", "Name a place that can be written and has room") from None
    return target


def _check_free(target: Path) -> None:
    taken = target.exists() and (target.suffix.lower() == ".zip" or not target.is_dir() or any(target.iterdir()))
    if taken:
        raise UsageError(f"--to {target}: it exists already", "Name a new folder or .zip; nothing is overwritten")


def _folder(path: Path, files: dict[str, bytes]) -> None:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)


def _zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _readme(run: Run) -> str:
    info = open_network(run.folder / FILE).info
    metrics = json.loads((run.folder / METRICS).read_text(encoding="utf-8"))
    classes = run.manifest["classes"]
    return f"""# {info["task"]}: {len(classes)} classes

`{FILE}` classifies images: {", ".join(classes)}.

It takes a batch of RGB images, uint8 `[b, h, w, 3]` of any height and width, as input `images`, and gives `probabilities`, float32
`[b, {len(classes)}]`, in the order of the classes. Resizing ({info["resize"]}, to {info["size"]} px) and normalisation are inside the graph.

    pip install onnxruntime pillow
    python example.py photo.jpg

Accuracy {metrics["accuracy"]:.4f}, macro F1 {metrics["macro"]["f1"]:.4f} on the {metrics["split"]} part of the data it was trained on
({info["strategy"]} fine-tuning of {info["arch"]}, run {info["run"]}, tlfast {info["tlfast"]}).

Pretrained weights: {info["weights"]}; licence: {info["licence"]}. `SHA256SUMS` proves the files whole: `sha256sum -c SHA256SUMS`.
"""
