"""`tlfast data check --labels`: label errors, outliers, and shifted or cropped copies, found by a network.

Label errors by confident learning (Northcutt et al. 2021, doi 10.1613/jair.1.12125, by cleanlab) on out-of-fold predictions; outliers by the mean
distance to the nearest neighbours in the features of a frozen backbone (Kuan and Mueller 2022, arXiv 2207.03061).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from pyarrow import parquet
from sklearn.neighbors import NearestNeighbors

from ..core import DataSettings, Event, OnEvent, Progress, Settings
from ..core.files import write_csv
from ..core.run_files import IMAGES_FILE, find_labels, probability_column
from ..data import Finding, Row, Task, duplicates
from ..data.duplicates import make_finding
from ..data.run_images import APPLIED
from ..data.scan import ScanResult
from ..training import experiments, trainer
from ..training.batch_size import use_default_batch
from ..training.features import extract
from .check import WrongLabels

FOLDS = 5
# Lower limits of the settings: a more accurate classifier finds label errors better; see docs/benchmarks.md, "Label errors".
SIZE, VIEWS = 192, 2
NEIGHBOURS = 10
BOOTSTRAP_ROWS, BOOTSTRAP_SAMPLES = 5_000_000, (20, 200)  # labels drawn in all; fewest and most samples
OUTLIER_FACTOR = 1.7  # interquartile ranges above the third quartile; cleanlab's threshold for features


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Predictions for n images, each by a classifier that was not trained on the image.

    Attributes:
        paths: paths of the images.
        labels: class indices of the labels `[n]`.
        probabilities: probabilities `[n, c]`.
        classes: names of the c classes.
    """

    paths: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: list[str]


def search_labels(
    task: Task, settings: Settings, rows: Sequence[Row], scanned: ScanResult, on_event: OnEvent, cutoff: float = 1.0
) -> tuple[list[Finding], WrongLabels]:
    """Return label errors, outliers and near duplicates among the readable images of train and valid, and the estimated number of wrong labels.

    Label errors are listed if the probability of the label is at most `cutoff`. Raises DataError if a class has fewer images than there are folds.
    """
    # The best epoch, as in the measurement of label errors in docs/benchmarks.md. No accuracy is reported that it would flatter.
    settings = replace(settings, size=max(SIZE, settings.size), views=max(VIEWS, settings.views), keep="best")

    def pass_progress(event: Event) -> None:
        if isinstance(event, Progress):  # notes of the trainings would repeat findings of the data check
            on_event(event)

    task = _without_folds(task, settings.fold)
    by_path = {row.path: row for row in rows if row.path not in scanned.unreadable}
    with _use_limited(settings, rows) as settings:
        predictions = _predict_out_of_fold(task, settings, pass_progress)
        by_features = _find_by_features(task, settings, by_path, scanned, pass_progress)
    errors = [finding for finding in find_label_errors(predictions, by_path) if (finding.value or 0.0) <= cutoff]
    return [*errors, *by_features], estimate_wrong_labels(predictions.labels, predictions.probabilities)


@contextmanager
def _use_limited(settings: Settings, rows: Sequence[Row]) -> Iterator[Settings]:
    """Yield settings for the given rows, as a table, if `--limit` has selected them: it would select others in each fold. Else yield the same settings."""
    if settings.limit is None:
        yield settings
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / IMAGES_FILE
        write_csv(file, [replace(row, path=os.path.abspath(row.path)) for row in rows])
        yield replace(settings, data=str(file), **{name: getattr(DataSettings, name) for name in APPLIED})


def _without_folds(task: Task, fold: int | None) -> Task:
    """Return the task with drawn folds of its train and valid splits, for exactly one prediction per image: the valid splits of official folds may overlap."""
    if task.rows is None:
        return task

    def read_undivided(root: Path, _: int | None) -> list[Row] | None:
        rows = task.read_layout(root, fold)
        return None if rows is None else [replace(row, split="train") if row.split == "valid" else row for row in rows]

    return replace(task, rows=read_undivided)


def estimate_wrong_labels(labels: np.ndarray, probabilities: np.ndarray) -> WrongLabels:
    """Return how many of the labels `[n]` are wrong by confident learning, from out-of-fold probabilities `[n, c]`.

    The interval is the 95 % interval of a bootstrap over the images. It does not include the error of the network, whose mistakes on images that are
    hard to tell apart also count.
    """
    generator, count = np.random.default_rng(0), len(labels)
    samples = (generator.integers(0, count, count) for _ in range(int(np.clip(BOOTSTRAP_ROWS / count, *BOOTSTRAP_SAMPLES))))
    estimates = [num_label_issues(labels[sample], probabilities[sample]) for sample in samples if len(np.unique(labels[sample])) == probabilities.shape[1]]
    low, high = np.quantile(estimates, [0.025, 0.975]) if estimates else (0, count)
    return WrongLabels(int(num_label_issues(labels, probabilities)), int(low), int(np.ceil(high)), count)


def find_label_errors(predictions: OutOfFoldPredictions, by_path: Mapping[str, Row]) -> list[Finding]:
    """Return the images of train and valid whose label is probably wrong, the most probable first, each with the predicted class."""
    labels, probabilities = predictions.labels, predictions.probabilities
    # This filter finds more label errors than cleanlab's default; see docs/benchmarks.md, "Label errors".
    ranked = find_label_issues(labels, probabilities, filter_by="predicted_neq_given", return_indices_ranked_by="self_confidence", n_jobs=1)
    findings = []
    for i in ranked:
        if row := by_path.get(predictions.paths[i]):
            looks_like = predictions.classes[probabilities[i].argmax()]
            findings.append(make_finding("label issue", row, value=float(probabilities[i, labels[i]]), reason=f"looks like {looks_like}"))
    return findings


def _predict_out_of_fold(task: Task, settings: Settings, on_event: OnEvent) -> OutOfFoldPredictions:
    """Train a classifier for each fold and merge the predictions."""
    tables = []
    for fold in range(FOLDS):
        on_event(Progress("checking labels", fold, FOLDS))
        tables.append(parquet.read_table(experiments.run_trial(task, experiments.place_on_fold(settings, FOLDS, fold), on_event).averaged))
    on_event(Progress("checking labels", FOLDS, FOLDS))
    classes = find_labels(tables[0].column_names)
    index = {label: i for i, label in enumerate(classes)}
    paths = [path for table in tables for path in table["path"].to_pylist()]
    labels = np.array([index[label] for table in tables for label in table["label"].to_pylist()])
    columns = [np.concatenate([table[probability_column(label)].to_numpy() for table in tables]) for label in classes]
    return OutOfFoldPredictions(paths, labels, np.stack(columns, axis=1).astype(np.float64), classes)


def _find_by_features(task: Task, settings: Settings, by_path: Mapping[str, Row], scanned: ScanResult, on_event: OnEvent) -> list[Finding]:
    """Return the outliers among train and valid, and the near duplicates whose thumbnails differ too much for `find_near`."""
    paths, vectors = _extract_vectors(task, settings, on_event)
    if len(vectors) <= NEIGHBOURS:
        return []
    on_event(Progress("comparing images", 0, 1))
    distances = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(vectors).kneighbors()[0]
    outliers = find_outliers(paths, distances.mean(axis=1), by_path)
    limit = duplicates.CLOSE * float(np.median(distances[:, 0]))
    readable = [by_path[path] for path in scanned.paths]
    aligned = _align(paths, vectors, scanned.paths)
    near = duplicates.find_near_by_features(readable, scanned.digests, scanned.thumbnail, aligned, limit, on_event)
    on_event(Progress("comparing images", 1, 1))
    return [*near, *outliers]


def _align(paths: Sequence[str], vectors: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Return the features `[n, d]` of `paths` in another order, with unit length; zero for other images, such as those of the test split."""
    place = {path: i for i, path in enumerate(order)}
    known = [i for i, path in enumerate(paths) if path in place]
    aligned = np.zeros((len(order), vectors.shape[1]), np.float32)
    aligned[[place[paths[i]] for i in known]] = vectors[known]
    aligned /= np.maximum(np.linalg.norm(aligned, axis=1, keepdims=True), 1e-12)
    return aligned


def find_outliers(paths: Sequence[str], distance: np.ndarray, by_path: Mapping[str, Row]) -> list[Finding]:
    """Return the images that are far from their nearest neighbours, the farthest first. `distance` is the mean distance to them `[n]`.

    The value of a finding is this distance, divided by the median over all images.
    """
    low, high = np.quantile(distance, [0.25, 0.75])
    threshold, median = high + OUTLIER_FACTOR * (high - low), max(float(np.median(distance)), 1e-12)
    far = [i for i in np.argsort(-distance, kind="stable") if distance[i] > threshold and paths[i] in by_path]
    return [make_finding("outlier", by_path[paths[i]], value=float(distance[i]) / median) for i in far]


def _extract_vectors(task: Task, settings: Settings, on_event: OnEvent) -> tuple[list[str], np.ndarray]:
    """Return the paths of train and valid, and their features `[n, d]` in the plain view, which the search for label errors has cached."""
    with trainer.prepare(task, experiments.place_on_fold(settings, FOLDS, 0), on_event) as session:
        features = extract(session.learn.model[0], session, use_default_batch(settings))
        paths = [row.path for split in ("train", "valid") for row in session.table.part(split)]
    return paths, np.concatenate([split.arrays[0][split.indices[0]] for split in (features.train, features.valid)]).astype(np.float32)
