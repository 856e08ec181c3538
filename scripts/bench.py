"""Time tlfast beside the script that a fastai user would write, in turns on the same machine; print and write the ratios.

The speed of shared machines drifts, so only ratios of measurements in the same round are compared: their median, least and greatest value are
shown. The groups are in bench_groups.py, the measurements, each a process of its own, in bench_measurements.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from bench_groups import GROUPS, QUICK_IMAGES, ROOT, Bench, Line
from bench_measurements import ARCH
from rich.console import Console
from rich.table import Table

from tlfast import tasks
from tlfast.core.system import count_cores, package_versions, total_memory_gib

SHARED = ROOT.parent / "shared"
COLUMNS = ("group", "what; against what", "ratio", "spread", "tlfast", "other", "unit", "remark")


def main() -> None:
    """Run the groups of the command line."""
    options = _parse_options()
    chosen = [group for name, group in GROUPS.items() if options.group in (name, "all")]
    if not Path(options.out).absolute().parent.is_dir():
        raise SystemExit(f"--out {options.out}: there is no such folder")
    with tempfile.TemporaryDirectory(prefix="tlfast-bench-") as folder:
        work = Path(folder)
        images, weights = prepare_data(work, options.quick)
        bench = Bench(images, weights, work, options.rounds or (1 if options.quick else 3), options.quick)
        lines: list[Line] = []
        record = {"when": f"{datetime.now():%Y-%m-%d %H:%M}", "quick": options.quick, "machine": describe_machine(bench)}
        try:
            for group in chosen:
                lines += group(bench)
                Path(options.out).write_text(json.dumps({**record, "lines": [asdict(line) for line in lines]}, indent=1), encoding="utf-8")
        finally:  # hours of measurements, if a later group fails
            print_table(lines, record["machine"])


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/bench")
    parser.add_argument("group", choices=[*GROUPS, "all"])
    parser.add_argument("--quick", action="store_true", help="use few images and steps, to test that it runs; less than five minutes")
    parser.add_argument("--rounds", type=int, help="number of repetitions (default: 3, with --quick 1)")
    parser.add_argument("--out", default="bench.json", help="JSON file to write")
    return parser.parse_args()


def prepare_data(work: Path, quick: bool) -> tuple[Path, Path | None]:
    """Write images as `train/<class>/` and `valid/<class>/`: FER2013 if it is available, otherwise the digits. Returns folder and weights, if any."""
    archive, weights = SHARED / "data" / "fer2013.zip", SHARED / "weights" / f"{ARCH}.safetensors"
    folder = work / "images"
    if archive.exists():
        _extract_faces(archive, folder, quick)
        return folder, weights if weights.exists() else None
    _draw_digits(work / "digits", folder)
    return folder, None


def _extract_faces(archive: Path, folder: Path, quick: bool) -> None:
    with zipfile.ZipFile(archive) as file:
        names = [name for name in file.namelist() if name.startswith(("train/", "valid/")) and not name.endswith("/")]
        step = max(1, len(names) // QUICK_IMAGES) if quick else 1
        file.extractall(folder, names[::step])


def _draw_digits(source: Path, folder: Path) -> None:
    make = tasks.get_task("digits").make
    assert make  # the images of this task are drawn
    make(source)
    for i, path in enumerate(sorted(source.rglob("*.png"))):
        target = folder / ("valid" if i % 5 == 0 else "train") / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def describe_machine(bench: Bench) -> dict[str, Any]:
    """Return processor, memory and versions, and the number of images."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": count_cores(),
        "memory (GiB)": total_memory_gib(),
        "images": sum(1 for path in bench.images.rglob("*") if path.is_file()),
        **package_versions(),
    }


def print_table(lines: Sequence[Line], machine: dict[str, Any]) -> None:
    """Print one row for each line."""
    table = Table(*COLUMNS, title="; ".join(f"{name} {value}" for name, value in machine.items()))
    for line in lines:
        table.add_row(*line.cells())
    Console(width=None if sys.stdout.isatty() else 220).print(table)


if __name__ == "__main__":
    main()
