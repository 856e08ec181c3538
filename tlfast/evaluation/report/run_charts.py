"""Charts of a run: reliability, accuracy against coverage, losses of each phase, and the learning-rate finder."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...core import RunError, RunRecord
from ...core.errors import first_line
from ...core.run_files import HISTORY_FILE, PLOTS
from .svg import Axis, Series, draw_chart


def draw_run_charts(run: RunRecord, metrics: Mapping[str, Any]) -> list[Markup]:
    """Return all charts; `metrics` is the content of `metrics.json`."""
    calibration = metrics["calibration"]
    return [_draw_reliability(calibration), _draw_coverage(calibration), *_draw_histories(run.folder / HISTORY_FILE), *_draw_rates(run.folder / PLOTS)]


def _draw_reliability(calibration: Mapping[str, Any]) -> Markup:
    bins = calibration["bins"]
    largest = max(b["images"] for b in bins)
    discs = Series("", [(b["confidence"], b["accuracy"]) for b in bins], 0, [3 + 9 * (b["images"] / largest) ** 0.5 for b in bins])
    return draw_chart("Reliability diagram", [discs], Axis("confidence", 0, 1), Axis("accuracy", 0, 1), diagonal=True)


def _draw_coverage(calibration: Mapping[str, Any]) -> Markup:
    curve = Series("", [(point["coverage"], point["accuracy"]) for point in calibration["curve"]])
    return draw_chart(
        "Accuracy against coverage", [curve], Axis("share of images with an accepted prediction", 0, 1), Axis("accuracy of accepted predictions", None, 1)
    )


def _draw_histories(path: Path) -> list[Markup]:
    """Draw the losses by epoch, one chart for each phase of the training."""
    phases: dict[str, list[dict[str, str]]] = defaultdict(list)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                phases[row["phase"]].append(row)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise RunError(f"{path} cannot be read ({first_line(error)})", "Copy the run again from where it was trained, or train again") from None
    charts = []
    for phase, rows in phases.items():
        lines = [
            Series(title, [(float(row["epoch"]), float(row[name])) for row in rows], colour)
            for colour, (name, title) in enumerate({"train_loss": "training loss", "valid_loss": "validation loss"}.items())
        ]
        charts.append(draw_chart(f"Training of the {phase}", lines, Axis("epoch", 1), Axis("loss")))
    return charts


def _draw_rates(folder: Path) -> list[Markup]:
    """Draw the loss against the learning rate, one chart for each use of the finder."""
    charts = []
    for path in sorted(folder.glob("lr-find-*.json")):
        curve = json.loads(path.read_text(encoding="utf-8"))
        points = list(zip(curve["rates"], curve["losses"], strict=True))
        points = points[: max(2, len(points) - len(points) // 12)]  # the last losses diverge, which ends the search
        points = [(rate, loss) for rate, loss in points if math.isfinite(loss)]
        if not points:  # the search failed
            continue
        lowest = min(loss for _, loss in points)
        highest = lowest + 1.6 * abs(points[0][1] - lowest) + 1e-6
        axes = Axis("learning rate", logarithmic=True), Axis("training loss (smoothed)", None, highest)
        name = path.stem.removeprefix("lr-find-").replace("-", " ")
        charts.append(draw_chart(f"Learning-rate finder, {name}", [Series("", points)], *axes, mark=curve.get("rate") or curve["suggestion"]))
    return charts
