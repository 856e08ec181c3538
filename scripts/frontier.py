"""Draw accuracy against minutes: presets and strategies of tlfast and the script that a fastai user would write.

Each training is a process of its own with an empty cache, and its minutes are those of the whole process. The trainings run in turn, so nothing else
should run on the machine. Their results are written to OUT/frontier.json one by one, and trainings in that file are not repeated. OUT/frontier.png is
the picture.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import SHARED
from bench_groups import Bench
from bench_measurements import ARCH
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tlfast.core.system import package_versions
from tlfast.evaluation.bootstrap import wilson_interval
from tlfast.evaluation.plots import save_figure

STRATEGIES = {"partial": [], "depth 2": ["--depth", "2"], "depth 3": ["--depth", "3"], "depth 4": ["--depth", "4"], "full": ["--full"]}
PRESETS = {f"preset {name}": ["--preset", name] for name in ("quick", "good", "best")}
FINE_TUNE = {f"fine_tune({epochs})": epochs for epochs in (1, 3, 6, 12)}
KINDS: dict[str, Mapping[str, Any]] = {"strategies of tlfast": STRATEGIES, "presets of tlfast": PRESETS, "plain fastai script": FINE_TUNE}
MARKERS = dict(zip(KINDS, ("o", "s", "^"), strict=True))


@dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
        kind: a key of `KINDS`.
        name: a key of the entry of `KINDS`.
        minutes: duration of the whole process.
        accuracy: share of the validation images that are right.
        images: number of validation images.
    """

    kind: str
    name: str
    minutes: float
    accuracy: float
    images: int


def main() -> None:
    """Run the trainings that are missing in OUT and draw all."""
    options = _parse_options()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    points = read_points(out, options)
    with tempfile.TemporaryDirectory(prefix="tlfast-frontier-") as folder:
        work = Path(folder)
        bench = Bench(_open_images(Path(options.data), work), Path(options.weights), work, rounds=1, quick=False)
        for kind, names in KINDS.items():
            for name in names:
                if name in options.trainings and name not in {point.name for point in points}:
                    points.append(train(bench, kind, name, options.size))
                    write_points(out, points, options)
                    print(points[-1], flush=True)
    draw(points, out / "frontier.png")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/frontier", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SHARED / "data" / "seedlings.zip"), help="zip or folder with train/CLASS/ and valid/CLASS/")
    parser.add_argument("--weights", default=str(SHARED / "weights" / f"{ARCH}.safetensors"), help=f"file of pretrained weights of {ARCH}")
    parser.add_argument("--size", type=int, default=128, help="side length of the input in pixels (default: 128)")
    names = [name for kind in KINDS.values() for name in kind]
    parser.add_argument("--trainings", nargs="+", choices=names, default=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--out", default="frontier", help="folder to write (default: frontier)")
    options = parser.parse_args()
    for option, path in (("--data", options.data), ("--weights", options.weights)):
        if not Path(path).exists():
            parser.error(f"{path} does not exist; name another one with {option}")
    return options


def _open_images(source: Path, work: Path) -> Path:
    """Return the folder of the images; a zip is extracted."""
    if source.is_dir():
        return source.resolve()
    with zipfile.ZipFile(source) as archive:
        archive.extractall(work / "images")
    return work / "images"


def train(bench: Bench, kind: str, name: str, size: int) -> Point:
    """Run one training as a process of its own."""
    value = KINDS[kind][name]
    if isinstance(value, int):
        result = bench.measure("plain_full", epochs=value, size=size)
        return Point(kind, name, result["wall"] / 60, result["accuracy"], int(result["images"]))
    fixed = ("--arch", ARCH, "--weights", str(bench.weights), "--size", str(size), "--out", str(bench.work / "exports"))
    result = bench.tlfast("train", str(bench.images), *fixed, *value, cache="frontier")
    shutil.rmtree(bench.work / "cache")
    images = sum(result["data"]["counts"]["valid"].values())
    return Point(kind, name, result["wall"] / 60, result["evaluation"]["accuracy"], images)


def read_points(out: Path, options: argparse.Namespace) -> list[Point]:
    """Return the trainings of an earlier run. Raises SystemExit if they are those of other images, weights or sizes."""
    file = out / "frontier.json"
    if not file.exists():
        return []
    record = json.loads(file.read_text(encoding="utf-8"))
    if record["settings"] != _describe_settings(options):
        raise SystemExit(f"{file} has trainings with {record['settings']}: give another --out")
    return [Point(**point) for point in record["points"]]


def _describe_settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"data": options.data, "weights": options.weights, "size": options.size}


def write_points(out: Path, points: list[Point], options: argparse.Namespace) -> None:
    """Write all trainings, with the settings and the versions of the packages."""
    record = {
        "when": f"{datetime.now():%Y-%m-%d %H:%M}",
        "settings": _describe_settings(options),
        "versions": package_versions(),
        "points": [asdict(point) for point in points],
    }
    (out / "frontier.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def draw(points: list[Point], path: Path) -> None:
    """Plot accuracies with 95 % intervals (Wilson) against minutes on a logarithmic scale."""
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = figure.subplots()
    for kind, marker in MARKERS.items():
        chosen = sorted((point for point in points if point.kind == kind), key=lambda point: point.minutes)
        if not chosen:
            continue
        minutes, accuracies = [point.minutes for point in chosen], [point.accuracy for point in chosen]
        ranges = [wilson_interval(round(point.accuracy * point.images), point.images) for point in chosen]
        errors = [[accuracy - low for accuracy, (low, _) in zip(accuracies, ranges, strict=True)]]
        errors.append([high - accuracy for accuracy, (_, high) in zip(accuracies, ranges, strict=True)])
        axes.errorbar(minutes, accuracies, yerr=errors, fmt=marker, capsize=3, label=kind)
        for point in chosen:
            axes.annotate(point.name, (point.minutes, point.accuracy), textcoords="offset points", xytext=(6, -10), fontsize=8)
    axes.set(xscale="log", xlabel="minutes of the whole command (logarithmic)", ylabel="accuracy on the validation images, with 95 % interval")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12)  # room for the names
    axes.grid(which="both", alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
