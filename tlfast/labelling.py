"""Labels that are probably wrong: confident learning (Northcutt et al. 2021, doi 10.1613/jair.1.12125, by cleanlab) on out-of-fold answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cleanlab.filter import find_label_issues
from pyarrow import parquet

from . import trials
from .copies import finding
from .results import Event, Finding, OnEvent, Row
from .settings import Settings, Task

FOLDS = 5
KIND = "label issue"


def suspects(task: Task, settings: Settings, rows: Sequence[Row], on_event: OnEvent) -> list[Finding]:
    """Name the images of train and valid whose label is probably wrong, the likeliest first, each with the label that it looks like.

    The classifier is trained on five folds of a frozen backbone's features, so that each image is judged by one that has not seen it. Raises
    DataError where a class has fewer images than there are folds.
    """
    by_path = {row.path: row for row in rows}
    paths, labels, probabilities, classes = _out_of_fold(task, settings, on_event)
    # Of 20 labels changed by chance among seedlings (partial fine-tuning, 0.78 right) 14 are in the first 60 so, 12 with cleanlab's default
    # filter, which keeps fewer images; and 12 and 10 by the answers for the plain images alone.
    ranked = find_label_issues(labels, probabilities, filter_by="predicted_neq_given", return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        finding(KIND, by_path[paths[i]], value=float(probabilities[i, labels[i]]), reason=f"looks like {classes[probabilities[i].argmax()]}")
        for i in ranked
        if paths[i] in by_path
    ]


def _out_of_fold(task: Task, settings: Settings, on_event: OnEvent) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Return paths, class indices `[n]`, probabilities `[n, c]`, and the classes in the order of the latter."""
    tables = []
    for fold in range(FOLDS):
        on_event(Event("judging labels", fold, FOLDS))
        tables.append(parquet.read_table(trials.trained(task, trials.on_fold(settings, FOLDS, fold), on_event).averaged))
    on_event(Event("judging labels", FOLDS, FOLDS))
    classes = [name[2:-1] for name in tables[0].column_names if name.startswith("p(")]
    index = {label: i for i, label in enumerate(classes)}
    paths = [path for table in tables for path in table["path"].to_pylist()]
    labels = np.array([index[label] for table in tables for label in table["label"].to_pylist()])
    columns = [np.concatenate([table[f"p({label})"].to_numpy() for table in tables]) for label in classes]
    return paths, labels, np.stack(columns, axis=1).astype(np.float64), classes
