"""One self-contained HTML page on a run: every figure, the images behind the errors, and how to repeat it. And its model card."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from pyarrow import parquet

from ... import tasks
from ...core.errors import RunError
from ...core.events import OnEvent, Progress, ignore_event
from ...core.metrics import FIGURE_TITLES, HEADLINES
from ...core.runs import METRICS, Run
from ...core.settings import Settings, declared_settings
from ...data.types import Finding
from ...tasks.resolve import resolve_settings
from .svg import Axis, Series, draw_chart
from .thumbnails import list_faults, make_thumbnail, to_data_url

FILE, CARD = "report.html", "MODEL_CARD.md"
BUDGET = 4_500_000  # bytes of thumbnails, as text, beside those of findings; the page stays below 8 MB
PER_CELL = 12  # images behind a cell of the confusion matrix
WORST, PAIRS, PER_PAIR = 24, 8, 4
PER_FAULT, PER_FAULT_CHECKED = 6, 30  # examples of each kind of finding: on a run's page, and on that of a data check
COLOURS = 6  # in the page's palette
NUMBERED = 30  # classes up to which the matrix shows numbers


@dataclass(frozen=True)
class _Answers:
    """What the run answers for each image of a part, worst first."""

    paths: list[str]
    actual: np.ndarray  # [n] class index
    predicted: np.ndarray  # [n]
    losses: np.ndarray  # [n]
    sure: np.ndarray  # [n] probability of the prediction


@dataclass(frozen=True)
class Judged:
    """What a run kept of one part: its metrics, as `metrics.json` has them, and its answers."""

    metrics: dict[str, Any]
    answers: _Answers

    @property
    def worst(self) -> list[str]:
        """The paths of the images with the largest losses, as many as the report shows."""
        return self.answers.paths[:WORST]


class _Album:
    """Thumbnails in the page, each once, within the budget; an image that cannot be read any more has none."""

    def __init__(self, answers: _Answers, classes: Sequence[str]) -> None:
        self.answers, self.classes = answers, classes
        self.shown: list[dict[str, Any]] = []
        self.places: dict[int, int] = {}
        self.left = BUDGET

    def add(self, i: int) -> int | None:
        """Return the place of image `i` in the album, or None where there is no room left for it."""
        if i not in self.places:
            picture = make_thumbnail(self.answers.paths[i])
            if len(picture) > self.left:
                return None
            self.left -= len(picture)
            self.places[i] = len(self.shown)
            self.shown.append({"picture": picture, **self.about(i)})
        return self.places[i]

    def about(self, i: int) -> dict[str, Any]:
        answers = self.answers
        return {
            "name": Path(answers.paths[i]).name,
            "actual": self.classes[answers.actual[i]],
            "predicted": self.classes[answers.predicted[i]],
            "probability": round(float(answers.sure[i]), 4),
            "loss": round(float(answers.losses[i]), 3),
        }


@dataclass(frozen=True)
class Evidence:
    """What is shown beside a run's own figures: pictures, by path, of where the network looked; and what is wrong with the data.

    `findings` is None where nobody looked.
    """

    maps: Mapping[str, Image.Image]
    findings: Sequence[Finding] | None


def write_report(run: Run, judged: Judged, evidence: Evidence, on_event: OnEvent = ignore_event) -> list[Path]:
    """Write `report.html` and `MODEL_CARD.md` into a run; return both."""
    split = judged.metrics["split"]
    values = _page_values(run, judged.metrics, judged.answers, evidence.maps, on_event)
    values["faults"] = None if evidence.findings is None else list_faults(evidence.findings, PER_FAULT)
    written = []
    for name, template in ((FILE, "report.html"), (CARD, "model_card.md")):
        path = run.folder / (name if split == "valid" else name.replace(".", f"_{split}."))
        path.write_text(template_environment().get_template(template).render(values), encoding="utf-8")
        written.append(path)
    return written


def read_judged(run: Run, split: str) -> Judged:
    """Read what a run kept of one part. Raises RunError where it kept none."""
    suffix = "" if split == "valid" else f"_{split}"
    try:
        metrics = json.loads((run.folder / METRICS.replace(".", f"{suffix}.")).read_text(encoding="utf-8"))
        return Judged(metrics, _read_answers(run.folder / f"predictions{suffix}.parquet", metrics["classes"]))
    except (OSError, KeyError, ValueError):
        hint = "Train again: it is of an older tlfast" if split == "valid" else f"Run first: tlfast evaluate {run.id} --split {split}"
        raise RunError(f"{run.folder} has no predictions of the {split} part to report", hint) from None


def template_environment() -> Environment:
    environment = Environment(loader=PackageLoader(__package__, "templates"), autoescape=lambda name: str(name).endswith(".html"))
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    return environment


def _read_answers(path: Path, classes: Sequence[str]) -> _Answers:
    table = parquet.read_table(path)
    index = {label: i for i, label in enumerate(classes)}
    losses = table["loss"].to_numpy()
    order = np.argsort(-losses, kind="stable")
    sure = np.max([table[f"p({label})"].to_numpy() for label in classes], axis=0)
    paths, (actual, predicted) = table["path"].to_pylist(), (np.array([index[v] for v in table[name].to_pylist()]) for name in ("label", "prediction"))
    return _Answers([paths[i] for i in order], actual[order], predicted[order], losses[order], sure[order])


def _page_values(run: Run, metrics: Mapping[str, Any], answers: _Answers, maps: Mapping[str, Image.Image], on_event: OnEvent) -> dict[str, Any]:
    """Return all that the templates show."""
    manifest, album = run.manifest, _Album(answers, metrics["classes"])
    worst = [{"place": place, "map": to_data_url(maps[answers.paths[i]]) if answers.paths[i] in maps else ""}
             for i in range(min(WORST, len(answers.paths))) if (place := album.add(i)) is not None]  # fmt: skip
    on_event(Progress("report", 1, 3))
    pairs = _list_pairs(metrics, answers, album)
    cells = _list_cells(metrics, answers, album)
    on_event(Progress("report", 2, 3))
    values = {
        "run": run.id,
        "task": run.task,
        "title": make_title(run),
        "created": manifest["created"],
        "settings": manifest["settings"],
        "tuning": Settings.from_dict(manifest["settings"]).tuning,
        "metrics": metrics,
        "headlines": _list_headlines(metrics),
        "worst": worst,
        "pairs": pairs,
        "matrix": _build_matrix(metrics, cells),
        "cells": {f"{i}-{j}": places for (i, j), places in cells.items()},
        "numbered": len(metrics["classes"]) <= NUMBERED,
        **_cell_size(len(metrics["classes"])),
        "album": album.shown,
        "charts": _build_charts(run, metrics),
        "data": manifest["data"],
        "weights": manifest["weights"]["source"],
        "device": manifest["device"],
        "seconds": manifest["seconds"],
        "onnx": manifest.get("onnx"),
        "looks": manifest.get("test_looks", []),
        "versions": manifest["versions"],
        "changed": _changed_settings(run),
        "command": repeat_command(run),
    }
    on_event(Progress("report", 3, 3))
    return values


def make_title(run: Run) -> str:
    """Return what the images are: the task's own, or whatever was given in their stead."""
    known = tasks.registered_tasks().get(run.task)
    if known and not run.manifest["settings"]["data"]:
        return known.title
    return f"the images of {Path(run.manifest['data']['source']).name}"


def _list_headlines(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = {**metrics, **{f"macro_{name}": metrics["macro"][name] for name in ("precision", "recall", "f1")}}
    found = [(name, FIGURE_TITLES[name], values.get(name)) for name in HEADLINES]  # a run of an earlier version has fewer
    return [
        {"name": title[0].upper() + title[1:], "value": value, "interval": metrics["intervals"].get(name)} for name, title, value in found if value is not None
    ]


def _list_pairs(metrics: Mapping[str, Any], answers: _Answers, album: _Album) -> list[dict[str, Any]]:
    """Return the most confused pairs, each with its errors and, beside them, images of the class that they were taken for."""
    matrix, classes = np.array(metrics["confusion"]), metrics["classes"]
    wrong = [(int(matrix[i, j]), int(i), int(j)) for i, j in zip(*np.nonzero(matrix), strict=True) if i != j]
    found = []
    for count, i, j in sorted(wrong, key=lambda each: (-each[0], each[1:]))[:PAIRS]:
        errors = _pick_some(np.flatnonzero((answers.actual == i) & (answers.predicted == j)), album, PER_PAIR)
        like = _pick_some(np.flatnonzero((answers.actual == j) & (answers.predicted == j))[::-1], album, PER_PAIR)  # the surest
        found.append({"actual": classes[i], "predicted": classes[j], "count": count, "share": count / matrix[i].sum(), "errors": errors, "like": like})
    return found


def _list_cells(metrics: Mapping[str, Any], answers: _Answers, album: _Album) -> dict[tuple[int, int], list[int]]:
    """Return the places of some images behind each cell of the confusion matrix, the fullest wrong cells first while there is room."""
    behind: dict[tuple[int, int], list[int]] = defaultdict(list)
    for n, (i, j) in enumerate(zip(answers.actual.tolist(), answers.predicted.tolist(), strict=True)):
        behind[i, j].append(n)
    order = sorted(behind, key=lambda cell: (cell[0] == cell[1], -len(behind[cell]), cell))
    found = {cell: _pick_some(behind[cell], album, PER_CELL) for cell in order}
    return {cell: places for cell, places in found.items() if places}


def _pick_some(candidates: Sequence[int] | np.ndarray, album: _Album, most: int) -> list[int]:
    """Put images into the album, those with the largest losses first; return their places."""
    return [place for i in candidates[:most] if (place := album.add(int(i))) is not None]


def _build_matrix(metrics: Mapping[str, Any], cells: Mapping[tuple[int, int], list[int]]) -> list[dict[str, Any]]:
    rows = []
    for i, (label, counts) in enumerate(zip(metrics["classes"], metrics["confusion"], strict=True)):
        total = sum(counts) or 1
        rows.append({"label": label, "cells": [{"count": n, "share": n / total, "key": f"{i}-{j}" if (i, j) in cells else ""} for j, n in enumerate(counts)]})
    return rows


def _cell_size(classes: int) -> dict[str, str]:
    """Return how large a cell of the matrix is: wide with few classes, a dot with many."""
    width, height, narrow = (4.6, 2.7, 2.3) if classes <= 9 else (2.9, 2.2, 2.0) if classes <= NUMBERED else (1.1, 1.1, 1.1)
    return {"cell_width": f"{width}rem", "cell_height": f"{height}rem", "cell_narrow": f"{narrow}rem"}


# Charts


def _build_charts(run: Run, metrics: Mapping[str, Any]) -> list[Any]:
    calibration = metrics["calibration"]
    largest = max(each["images"] for each in calibration["bins"])
    bins = [(each["confidence"], each["accuracy"]) for each in calibration["bins"]]
    sizes = [3 + 9 * (each["images"] / largest) ** 0.5 for each in calibration["bins"]]
    share = Axis("probability of the likeliest class", 0, 1)
    found = [
        draw_chart("Reliability: a disc on the line says what it means", [Series("", bins, 0, sizes)], share, Axis("share that is right", 0, 1), diagonal=True),
        draw_chart(
            "Answering only when sure enough",
            [Series("", [(each["coverage"], each["accuracy"]) for each in calibration["curve"]])],
            Axis("share of images answered", 0, 1),
            Axis("share of answers that is right"),
        ),
    ]
    return [*found, *_build_histories(run), *_build_rates(run)]


def _build_histories(run: Run) -> list[Any]:
    """Draw the losses of each phase of a training, epoch by epoch."""
    with (run.folder / "history.csv").open(newline="", encoding="utf-8") as file:
        phases: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in csv.DictReader(file):
            phases[row["phase"]].append(row)
    drawn = []
    for phase, rows in phases.items():
        lines = [
            Series(title, [(float(row["epoch"]), float(row[name])) for row in rows], colour)
            for colour, (name, title) in enumerate({"train_loss": "training loss", "valid_loss": "validation loss"}.items())
        ]
        drawn.append(draw_chart(f"Training of the {phase}", lines, Axis("epoch", 1), Axis("loss")))
    return drawn


def _build_rates(run: Run) -> list[Any]:
    drawn = []
    for path in sorted((run.folder / "plots").glob("lr-find-*.json")):
        curve = json.loads(path.read_text(encoding="utf-8"))
        points = list(zip(curve["rates"], curve["losses"], strict=True))
        points = points[: max(2, len(points) - len(points) // 12)]  # the last losses are those of the divergence that ended the search
        name = path.stem.removeprefix("lr-find-").replace("-", " ")
        lowest = min(loss for _, loss in points)
        high = lowest + 1.6 * abs(points[0][1] - lowest) + 1e-6
        axes = Axis("learning rate", logarithmic=True), Axis("training loss (smoothed)", None, high)
        drawn.append(draw_chart(f"Learning-rate finder, {name}", [Series("", points)], *axes, mark=curve["suggestion"]))
    return drawn


def render_check_page(title: str, source: str, findings: Sequence[Finding]) -> str:
    """Return the page of a data check: each kind of finding with examples."""
    return template_environment().get_template("check.html").render(title=title, source=source, faults=list_faults(findings, PER_FAULT_CHECKED))


# How to repeat it


def _changed_settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run that differ from the defaults of its task and strategy."""
    settings = Settings.from_dict(run.manifest["settings"])
    task = tasks.registered_tasks().get(run.task) or tasks.folder_task(Path(run.manifest["data"]["source"]))
    usual = resolve_settings(task, settings.strategy, {})
    values = {name: getattr(settings, name) for name in declared_settings() if name not in ("name", "out")}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


def repeat_command(run: Run) -> str:
    """Return the command that repeats the training."""
    changed = _changed_settings(run)
    source = changed.pop("data", "") or ("" if run.task in tasks.registered_tasks() else run.manifest["data"]["source"])
    return tasks.train_command(run.task, source, {"depth": Settings.from_dict(run.manifest["settings"]).depth, **changed})
