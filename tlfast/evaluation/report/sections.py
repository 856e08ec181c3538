"""Sections of the report of a run.

`SECTIONS` lists them in the order of the page. A section is a function here, which returns the values of the template
`templates/sections/<name>.html`. Templates also see the values of `facts.collect_facts`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...core import RunRecord
from ...data.types import RANKED
from ..confusion import most_confused
from .album import Album
from .image_choices import ImageChoices
from .inputs import Evidence, StoredEvaluation
from .run_charts import draw_run_charts
from .thumbnails import group_findings, to_data_url

MAX_PAIRS, PAIR_EXAMPLES = 8, 4
CELL_EXAMPLES = 12  # images behind a cell of the confusion matrix
FINDING_EXAMPLES, RANKED_EXAMPLES = 6, 12  # of each kind; of label issues and of outliers
MAX_DRAWN = 150  # classes up to which the page has a confusion matrix
MAX_NUMBERED = 30  # classes up to which the confusion matrix shows numbers


@dataclass(frozen=True)
class ReportContext:
    """What the sections of a report are built from.

    Attributes:
        run: the run.
        evaluation: its stored metrics and predictions for the split.
        evidence: activation maps and findings.
        album: thumbnails of the page, which sections add to.
        choices: images that can be dropped or relabelled in the page.
    """

    run: RunRecord
    evaluation: StoredEvaluation
    evidence: Evidence
    album: Album
    choices: ImageChoices


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: anchor in the page, and name of the template.
        title: heading.
        values: returns the values of the template.
        link: text of the link in the navigation; by default the title.
        album_order: order in which sections add to the album, whose budget is limited; sections that add nothing come last.
    """

    name: str
    title: str
    values: Callable[[ReportContext], dict[str, Any]]
    link: str = ""
    album_order: int = 9


def class_values(context: ReportContext) -> dict[str, Any]:
    """Return the scores of each class."""
    return {"scores": context.evaluation.metrics["per_class"]}


def matrix_values(context: ReportContext) -> dict[str, Any]:
    """Return the rows of the confusion matrix, the size of its cells, and the images behind each cell."""
    metrics = context.evaluation.metrics
    classes, is_drawn = metrics["classes"], len(metrics["classes"]) <= MAX_DRAWN
    cells = _list_cells(context) if is_drawn else {}
    rows = []
    for i, (label, counts) in enumerate(zip(classes, metrics["confusion"], strict=True) if is_drawn else []):
        total = sum(counts) or 1
        row = [{"count": count, "share": count / total, "key": f"{i}-{j}" if (i, j) in cells else ""} for j, count in enumerate(counts)]
        rows.append({"label": label, "cells": row})
    images = {f"{i}-{j}": places for (i, j), places in cells.items()}
    return {"matrix": rows, "cells": images, "numbered": len(classes) <= MAX_NUMBERED, **_cell_size(len(classes))}


def _list_cells(context: ReportContext) -> dict[tuple[int, int], list[int]]:
    """Return indices in the album for each cell (actual, predicted), the largest losses first; errors take space before correct predictions."""
    predictions = context.evaluation.predictions
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for n, (i, j) in enumerate(zip(predictions.actual.tolist(), predictions.predicted.tolist(), strict=True)):
        members[i, j].append(n)
    order = sorted(members, key=lambda cell: (cell[0] == cell[1], -len(members[cell]), cell))
    places = {cell: context.album.add_first(members[cell], CELL_EXAMPLES) for cell in order}
    return {cell: found for cell, found in places.items() if found}


def _cell_size(classes: int) -> dict[str, str]:
    """Return the size of a cell in CSS units: wide for few classes, a dot for many."""
    width, height, narrow = (4.6, 2.7, 2.3) if classes <= 9 else (2.9, 2.2, 2.0) if classes <= MAX_NUMBERED else (1.1, 1.1, 1.1)
    return {"cell_width": f"{width}rem", "cell_height": f"{height}rem", "cell_narrow": f"{narrow}rem"}


def top_loss_values(context: ReportContext) -> dict[str, Any]:
    """Return the images with the largest losses and their activation maps."""
    album, maps, losses = context.album, context.evidence.maps, []
    for i, path in enumerate(context.evaluation.top_losses):
        place = album.add(i)
        if place is not None:
            losses.append({**album.entries[place], "map": to_data_url(maps[path]) if path in maps else "", "choice": context.choices.find(path)})
    return {"losses": losses}


def pair_values(context: ReportContext) -> dict[str, Any]:
    """Return the most confused pairs of classes, with errors and, for comparison, images of the class that they were mistaken for."""
    metrics, predictions, album = context.evaluation.metrics, context.evaluation.predictions, context.album
    index = {label: i for i, label in enumerate(metrics["classes"])}
    pairs = []
    for confused in most_confused(metrics["confusion"], metrics["classes"])[:MAX_PAIRS]:
        i, j, pair = index[confused.actual], index[confused.predicted], asdict(confused)
        errors = np.flatnonzero((predictions.actual == i) & (predictions.predicted == j))
        confident = np.flatnonzero((predictions.actual == j) & (predictions.predicted == j))[::-1]  # smallest losses first
        for name, candidates in (("errors", errors), ("correct", confident)):
            pair[name] = [album.entries[place] for place in album.add_first(candidates, PAIR_EXAMPLES)]
        pairs.append(pair)
    return {"pairs": pairs}


def chart_values(context: ReportContext) -> dict[str, Any]:
    """Return the charts of calibration and training."""
    return {"charts": draw_run_charts(context.run, context.evaluation.metrics)}


def check_values(context: ReportContext) -> dict[str, Any]:
    """Return the findings of the data check, or why there are none, and the choices."""
    evidence = context.evidence
    return {
        "groups": None if evidence.findings is None else group_findings(evidence.findings, FINDING_EXAMPLES, RANKED_EXAMPLES),
        "labels_checked": any(finding.kind in RANKED for finding in evidence.findings or ()),
        "unchecked": evidence.unchecked,
        "choices": context.choices,
        "unlisted": evidence.unlisted,
    }


def use_facts(context: ReportContext) -> dict[str, Any]:
    """Return nothing: all values of the section are among the facts."""
    return {}


SECTIONS = (
    Section("classes", "Classes", class_values),
    Section("matrix", "Confusion matrix", matrix_values, link="Confusion", album_order=3),
    Section("worst", "Largest losses", top_loss_values, album_order=1),
    Section("pairs", "Most confused pairs", pair_values, link="Confused pairs", album_order=2),
    Section("charts", "Calibration and training", chart_values),
    Section("data", "Data", use_facts),
    Section("check", "Data check", check_values),
    Section("repeat", "Repeat", use_facts),
)
