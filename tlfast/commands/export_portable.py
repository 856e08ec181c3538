"""`tlfast export --format`: a file for another runtime, compared with the network before it is kept."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from ..core import OnEvent, RunRecord, runs
from ..data import Preprocessing
from ..export import load_model, portable
from ..export.agreement import ResizedInput
from ..export.onnx import OPSET, sample_images
from ..export.types import PortableExport
from .export import check_absent, read_images_of_run, select_split


def add_portable(run: RunRecord, chosen: portable.PortableFormat, opset: int, on_event: OnEvent) -> tuple[RunRecord, PortableExport]:
    """Write the network of a run in a format, with an example program, into the run. Returns the run with its new manifest.

    Raises UsageError for an existing file, ExportError if the file cannot be written or differs from the network, RunError or DataError if files of the run
    or its images are missing.
    """
    names, preprocessing = [*chosen.files, chosen.example_file], Preprocessing.of_run(run)
    for file in names:
        check_absent(run, file)
    paths = [row.path for row in select_split(read_images_of_run(run), "valid")]
    network = ResizedInput(load_model(run), preprocessing, run.temperature)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".export.") as scratch:
        folder = Path(scratch)
        portable.write_portable(chosen, network, preprocessing.size, folder, opset or OPSET)
        agreement = portable.check_files(chosen, folder, network, preprocessing, sample_images(paths, network.model, preprocessing.size), on_event)
        (folder / chosen.example_file).write_text(portable.format_example(chosen, run.manifest["classes"], preprocessing), encoding="utf-8")
        size = sum((folder / file).stat().st_size for file in chosen.files) / 1e6
        result = PortableExport(chosen.name, names, size, agreement.images, agreement.top1, agreement.largest_difference)
        return runs.add_files(run, [folder / file for file in names], asdict(result)), result
