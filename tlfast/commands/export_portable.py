"""`tlfast export --format`: a file for another runtime, compared with the network before it is kept."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from ..core import OnEvent, Run, Settings, runs
from ..data import Preprocessing
from ..export import load_model, portable
from ..export.onnx import OPSET, sample_images
from ..export.types import PortableExport
from .export import check_absent, read_images_of_run, select_split


def add_portable(run: Run, name: str, opset: int, on_event: OnEvent) -> tuple[Run, PortableExport]:
    """Write the network of a run in a format of `PORTABLE`, with an example program, into the run. Returns the run with its new manifest.

    Raises UsageError for an unknown format, a missing package or an existing file, ExportError if the file cannot be written or differs from the network,
    RunError or DataError if files of the run or its images are missing.
    """
    chosen = portable.check_portable(name)
    names = [*chosen.files, chosen.example_file]
    for file in names:
        check_absent(run, file)
    settings, temperature = Settings.from_dict(run.manifest["settings"]), float(run.manifest.get("temperature", 1.0))
    preprocessing = Preprocessing.from_settings(settings, (run.manifest["mean"], run.manifest["std"]))
    paths = [row.path for row in select_split(read_images_of_run(run), "valid")]
    model = load_model(run)
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".export.") as scratch:
        folder = Path(scratch)
        portable.write_portable(chosen, model, preprocessing, temperature, folder, opset or OPSET)
        agreement = portable.check_files(chosen, folder, model, preprocessing, temperature, sample_images(paths, model, settings.size), on_event)
        (folder / chosen.example_file).write_text(portable.format_example(chosen, run.manifest["classes"], preprocessing), encoding="utf-8")
        size = sum((folder / file).stat().st_size for file in chosen.files) / 1e6
        result = PortableExport(name, names, size, agreement.images, agreement.top1, agreement.largest_difference)
        for file in names:
            run = runs.add_file(run, file, folder / file, asdict(result))
    return run, result
