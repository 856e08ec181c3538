"""Prepare a session, fit it by its strategy, and predict its valid split."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from fastai.torch_core import set_seed

from ..core.errors import TrainingError
from ..core.events import Note, OnEvent
from ..core.journal import Journal
from ..core.settings import Settings
from ..core.system import release_memory
from ..data import ImageTable, Store, duplicates, load_table, open_store
from ..data.sources import locate
from ..data.store import image_digests
from ..data.task import Task
from ..evaluation import predictions
from ..evaluation.types import Predictions
from ..models import build, pretrained
from ..models.device import pick_device
from ..models.weights import normalization_stats
from . import checkpoints, learner
from .features import Features
from .loaders import build_loaders, plain_loader
from .phase import balance_classes
from .session import Session
from .strategies.depth import fit_upper_stages
from .strategies.full import ALL_LAYERS, fit_all_layers
from .strategies.partial import BATCHNORM, fit_head
from .types import Phase


@contextmanager
def prepare(task: Task, settings: Settings, on_event: OnEvent) -> Iterator[Session]:
    """Check everything that can be checked before any training, then build loaders and learner."""
    build.check_arch(settings.arch)
    device = pick_device(settings.device)
    weights = pretrained.find_weights(settings.arch, settings.weights)
    stats = normalization_stats(weights)
    table, store = open_store(load_table(task, settings, locate(task, settings.data)), settings, on_event)
    for note in [*table.notes, *_describe_copies(table, store)]:
        on_event(Note("data", note))
    for bad in table.unreadable:
        on_event(Note("data", f"skipped {bad.path}: {bad.reason}"))
    set_seed(settings.seed, reproducible=True)
    dls = build_loaders(table, settings, stats, device, store)
    learn = learner.build_learner(dls, settings, weights, _class_weights(table, settings, device))
    with tempfile.TemporaryDirectory() as scratch:  # fastai keeps the finder's copy of the model there
        learn.path = Path(scratch)
        yield Session(table, store, weights, stats, learn)


def fit(bench: Session, settings: Settings, on_event: OnEvent, journal: Journal) -> tuple[list[Phase], Features | None]:
    """Train by the settings' strategy: the head on frozen features, and with `full` then all layers at discriminative rates.

    What the journal knows to be done is not done again. Returns the phases, and the features where those are still what the model makes of the images.
    """
    full, middle = settings.strategy == "full", settings.strategy == "middle"
    name = BATCHNORM if settings.train_bn and settings.strategy == "partial" else "head"
    first, features = checkpoints.load_phase(journal, name, bench.learn.model), None
    if middle:
        return fit_upper_stages(bench, settings, on_event, journal, first), None
    if not first:
        first, features = fit_head(bench, settings, on_event, journal)
    phases = [first] if first else []
    if full:
        last = checkpoints.load_phase(journal, ALL_LAYERS["name"], bench.learn.model) or fit_all_layers(bench, settings, on_event, journal, first)
        return [*phases, last], None
    return phases, features


def fit_within_memory(bench: Session, settings: Settings, phase: str, on_event: OnEvent, journal: Journal, attempt: Callable[[Settings], Phase]) -> Phase:
    """Train a phase; where a GPU's memory does not suffice, in smaller batches of which more are added up, from the phase's beginning."""
    began = copy.deepcopy(bench.learn.model.state_dict())
    while True:
        own = _halve_batch(settings, journal.facts.get("halvings", 0))
        try:
            return attempt(own)
        except torch.OutOfMemoryError:
            if own.bs == 1 or not settings.auto_bs:
                raise TrainingError(f"the memory of {bench.learn.dls.device} does not suffice for --bs {own.bs}", "Use a smaller --bs or --size") from None
        journal.facts["halvings"] = journal.facts.get("halvings", 0) + 1
        journal.write()
        checkpoints.remove_checkpoints(journal, phase)
        bench.learn.opt = None
        bench.learn.model.load_state_dict(began)
        torch.cuda.empty_cache()
        on_event(Note(phase, f"out of memory with {own.bs} images in a batch: half as many, twice as many batches to a step"))


def _halve_batch(settings: Settings, times: int) -> Settings:
    bs = max(1, settings.bs >> times)
    return replace(settings, bs=bs, accumulate=settings.accumulate * (settings.bs // bs))


def predict_valid(bench: Session, settings: Settings, on_event: OnEvent) -> Predictions:
    """Run the whole model on the images of the valid part."""
    release_memory()
    rows = bench.table.part("valid")
    loader = plain_loader(bench.learn.dls, rows, settings.bs)
    return predictions.predict_loader(bench.learn.model, loader, rows, bench.table.classes, on_event)


def _describe_copies(table: ImageTable, store: Store | None) -> list[str]:
    """Say what images are there twice, where they were decoded anyway."""
    said = duplicates.describe_duplicates(table.rows, image_digests(store)) if store else ""
    return [f"{said}; tlfast data check names them, --drop leaves them out"] if said else []


def _class_weights(table: ImageTable, settings: Settings, device: torch.device) -> torch.Tensor | None:
    if settings.class_weights == "none":
        return None
    index = {label: i for i, label in enumerate(table.classes)}
    return balance_classes([index[row.label] for row in table.part("train")], len(index)).to(device)
