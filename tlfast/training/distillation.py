"""Distillation: runs as teachers, whose probabilities are further targets of a training.

Hinton et al. 2015 (arXiv 1503.02531). Teacher and student see the same augmented views, as in Beyer et al. 2022 (arXiv 2106.05237).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..core import DataError, RunError, RunRecord, Settings, UsageError, runs
from ..core.errors import first_line, list_some
from ..core.run_files import IMAGES_FILE, WEIGHTS_FILE
from ..core.runs import HUB_SCHEME
from ..data import ImageTable, Preprocessing
from ..data.records import read_records
from ..export.weights import load_model
from ..models.teacher import Ensemble, Teacher
from . import features
from .amp import FrozenBody
from .callbacks.distillation import Distillation
from .session import Session

SHOWN = 5  # class names in a message
HINT = "Give the name of a run in the folder of --out, or the folder of a run; list the runs with: tlfast runs"


def find_teachers(settings: Settings) -> list[RunRecord]:
    """Return the runs of `--teacher`; none without it. Raises UsageError or RunError."""
    names = [name.strip() for name in settings.teacher.split(",") if name.strip()]
    if len(names) > 1 and os.path.isdir(settings.teacher):  # the folder of one run, which has a comma in its path
        names = [settings.teacher]
    if settings.teacher and not names:
        raise UsageError(f"--teacher {settings.teacher} names no run", HINT)
    return [_find_teacher(name, settings.out) for name in names]


def _find_teacher(name: str, out: str) -> RunRecord:
    if name.startswith(HUB_SCHEME):
        raise UsageError(f"--teacher {name} is on the hub", f"Download it first: tlfast pull {name.removeprefix(HUB_SCHEME)}")
    try:
        return runs.find(name, out)
    except RunError as error:
        raise RunError(f"--teacher {name}: {error.message}", HINT) from None


def resolve_teachers(settings: Settings) -> Settings:
    """Return the settings with the folders of the runs of `--teacher`. The name of a task would mean another run after the next training.

    Raises UsageError or RunError.
    """
    return replace(settings, teacher=",".join(str(run.folder) for run in find_teachers(settings)))


def describe_teachers(settings: Settings) -> list[str]:
    """Return the SHA-256 of the weights of each run of `--teacher`, for names of cached results."""
    return [run.manifest.get("files", {}).get(WEIGHTS_FILE, str(run.folder)) for run in find_teachers(settings)]


def open_teachers(found: Sequence[RunRecord], classes: Sequence[str], given: Preprocessing) -> Ensemble | None:
    """Return runs as one network for images with these classes and this preprocessing; None without runs.

    Raises RunError for a run that cannot be loaded or has changed weights, UsageError for one with other classes.
    """
    return Ensemble([_open_teacher(run, classes, given) for run in found], [run.id for run in found]) if found else None


def _open_teacher(run: RunRecord, classes: Sequence[str], given: Preprocessing) -> Teacher:
    known = run.classes
    if set(known) != set(classes):
        missing, further = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
        differences = [f"{what} {list_some(names, SHOWN)}" for what, names in (("without", missing), ("with", further)) if names]
        raise UsageError(f"--teacher {run.id} has other classes than the images: {' and '.join(differences)}", "Train a teacher on the same classes")
    try:
        runs.verify(run, (WEIGHTS_FILE,))
    except RunError as error:
        raise RunError(f"--teacher {run.id}: {error.message}", HINT) from None
    network: Any = load_model(run)
    numbers = {name: number for number, name in enumerate(known)}
    return Teacher(network, Preprocessing.of_run(run), given, [numbers[label] for label in classes])


def describe_leaks(found: Sequence[RunRecord], table: ImageTable) -> list[str]:
    """Return a note for each run that was trained on images of the valid split."""
    valid = {row.path for row in table.part("valid")}
    notes = []
    for run in found:
        try:
            trained = {record["path"] for record in read_records(run.folder / IMAGES_FILE)[1] if record["split"] == "train"}
        except (DataError, OSError, KeyError) as error:
            notes.append(f"whether the teacher {run.id} was trained on valid images is unknown: its images.csv cannot be read ({first_line(error)})")
            continue
        if leaked := len(valid & trained):
            problem = f"{leaked} of the {len(valid)} valid images were training images of the teacher {run.id}, so the metrics will be too high"
            notes.append(f"{problem}. Train the teacher with the split of this training: the same --seed, --fold and --data")
    return notes


def compute_targets(session: Session, settings: Settings) -> features.SplitFeatures | None:
    """Return the teacher's log-probabilities `[c]` for the items of the train split's `SplitFeatures`; None without a teacher.

    The teacher runs once on each view, or its output is read from the cache. The views are those from which `features.extract` computes features for
    the same settings. Raises DataError if the cache cannot be written.
    """
    if session.teacher is None:
        return None
    chosen = replace(features.broadcast_precision(session.teacher, session, settings), cache_format="fp16")
    return features.extract(session.teacher, session, chosen, "teacher: probabilities").train


def build_distillation(session: Session, settings: Settings) -> list[Distillation]:
    """Return the callback of phases that train on images: the teacher runs in each step. Empty without a teacher."""
    if session.teacher is None:
        return []
    return [Distillation(FrozenBody(session.teacher, features.broadcast_precision(session.teacher, session, settings).amp))]
