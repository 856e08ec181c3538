"""Distillation: runs as teachers, whose probabilities are further targets of a training.

Hinton et al. 2015 (arXiv 1503.02531). Teacher and student see the same augmented views, as in Beyer et al. 2022 (arXiv 2106.05237).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from ..core import Run, Settings, UsageError, runs
from ..data import ImageTable, Preprocessing
from ..data.discovery import read_records
from ..export.weights import WEIGHTS, load_model
from ..models import to_network_input
from ..models.fuse_bn import fuse_bn
from . import features
from .amp import FrozenBody
from .callbacks.distillation import Distillation, soften
from .session import Session


class Teacher(nn.Module):
    """A trained network that reads the input of another one: `[b, 3, h, w]` -> log-probabilities `[b, c]`, without gradients.

    Args:
        network: body and head, in eval mode.
        own: preprocessing of the network.
        given: preprocessing of the input. It is undone, and images are resized to the size of the network.
        order: index of each class of the student among the classes of the network, `[c]`.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    order: torch.Tensor

    def __init__(self, network: nn.Sequential, own: Preprocessing, given: Preprocessing, order: Sequence[int]) -> None:
        super().__init__()
        body, head = network
        self.network, self.size = nn.Sequential(fuse_bn(body), head).eval(), own.size
        mean, std, own_mean, own_std = (torch.tensor(values).view(1, 3, 1, 1) for values in (given.mean, given.std, own.mean, own.std))
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)
        self.register_buffer("order", torch.tensor(order))

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = to_network_input(x) * self.scale + self.shift
        if x.shape[-1] != self.size:
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", antialias=True)
        logits: torch.Tensor = self.network(to_network_input(x))
        return logits[:, self.order].float().log_softmax(dim=1)


class Ensemble(nn.Module):
    """Several teachers, whose probabilities are averaged: `[b, 3, h, w]` -> log-probabilities `[b, c]`."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([teacher(x) for teacher in self.teachers]).logsumexp(dim=0) - math.log(len(self.teachers))


def find_teachers(settings: Settings) -> list[Run]:
    """Return the runs of `--teacher`; none without it. Raises RunError, also for a run with changed weights."""
    found = [runs.find(name.strip(), settings.out) for name in settings.teacher.split(",") if name.strip()]
    for run in found:
        runs.verify(run, (WEIGHTS,))
    return found


def describe_teachers(settings: Settings) -> list[str]:
    """Return the SHA-256 of the weights of each run of `--teacher`, for names of cached results."""
    return [run.manifest.get("files", {}).get(WEIGHTS, str(run.folder)) for run in find_teachers(settings)]


def open_teachers(settings: Settings, table: ImageTable, given: Preprocessing) -> Ensemble | None:
    """Return the runs of `--teacher` as one network; None without it.

    Raises RunError if a run cannot be loaded, UsageError if its classes are not those of the images.
    """
    found = find_teachers(settings)
    return Ensemble([_open_teacher(run, table.classes, given) for run in found]) if found else None


def _open_teacher(run: Run, classes: Sequence[str], given: Preprocessing) -> Teacher:
    known = list(run.manifest["classes"])
    if set(known) != set(classes):
        missing, further = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
        differences = [f"{what} {', '.join(names[:5])}" for what, names in (("without", missing), ("with", further)) if names]
        raise UsageError(f"--teacher {run.id} has other classes than the images: {' and '.join(differences)}", "Train a teacher on the same classes")
    network: Any = load_model(run)
    return Teacher(network, Preprocessing.of_run(run), given, [known.index(label) for label in classes])


def describe_leaks(settings: Settings, table: ImageTable) -> list[str]:
    """Return a note for each run of `--teacher` that was trained on images of the valid split."""
    valid = {row.path for row in table.part("valid")}
    notes = []
    for run in find_teachers(settings):
        path = run.folder / "images.csv"
        trained = {record["path"] for record in read_records(path)[1] if record["split"] == "train"} if path.is_file() else set()
        if leaked := len(valid & trained):
            problem = f"{leaked} of the {len(valid)} valid images were training images of the teacher {run.id}, so the metrics will be too high"
            notes.append(f"{problem}. Train the teacher with the split of this training: the same --seed, --fold and --data")
    return notes


def compute_targets(session: Session, settings: Settings) -> torch.Tensor | None:
    """Return the teacher's softened probabilities for the items of the train split's `SplitFeatures`, `[v * n, c]`; None without a teacher.

    The teacher runs once on each view, or its output is read from the cache. The views are those from which `features.extract` computes features for
    the same settings. Raises DataError if the cache cannot be written.
    """
    if session.teacher is None:
        return None
    found = features.extract(session.teacher, session, replace(settings, cache_format="fp16"), "teacher: probabilities").train
    return soften(found[torch.arange(len(found))])


def list_teaching(session: Session, settings: Settings) -> list[Distillation]:
    """Return the callback of phases that train on images: the teacher runs in each step. Empty without a teacher."""
    if session.teacher is None:
        return []
    return [Distillation(FrozenBody(session.teacher, features.pass_precision(session.teacher, session, settings)))]
