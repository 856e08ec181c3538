"""Prepare a session, fit it by its strategy, and predict its valid split."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.torch_core import set_seed

from ..core import Journal, Note, OnEvent, Settings, TrainingError
from ..core.errors import first_line
from ..core.system import release_memory
from ..data import ImageTable, Preprocessing, Store, Task, duplicates, open_store
from ..data.sources import open_with_splits
from ..data.store import image_digests
from ..evaluation import Predictions
from ..models import (
    build,
    choose_algorithms,
    collect_garbage,
    copy_state,
    is_out_of_memory,
    move_network,
    normalization_stats,
    pick_device,
    pretrained,
    release_device_memory,
    share_cores,
)
from . import checkpoints, processes
from .data_parallel import open_data_parallel
from .distillation import describe_leaks, find_teachers, open_teachers
from .feature_learner import predict_from_features
from .features import Features
from .learner import build_learner, compute_class_weights
from .loaders import build_loaders, describe_workers
from .phase import fit_phase
from .prediction import predict_rows
from .session import Session
from .strategies import OpenPhase, PhasePlan, get_strategy
from .types import MIN_BATCH, Phase

SKIPPED = 20  # unreadable images that are named
T = TypeVar("T")


@contextmanager
def prepare(
    task: Task,
    settings: Settings,
    on_event: OnEvent,
    journal: Journal | None = None,
    callbacks: Sequence[Callback] = (),
    known: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Session]:
    """Check the settings, the images and the weights, then build loaders and Learner. Raises TlfastError.

    Without a journal nothing is saved for resuming. `callbacks` are used in every phase, but not by the learning-rate finder. `known` are the splits of
    images by absolute path, in place of others that would be drawn.
    """
    build.check_arch(settings.arch)
    device = pick_device(settings.device)
    collect_garbage(device)  # of trainings before
    weights = pretrained.find_weights(settings.arch, settings.weights)
    preprocessing = Preprocessing.from_settings(settings, normalization_stats(weights))
    table, store = open_store(open_with_splits(task, settings, lambda source: known, on_event), settings, on_event)
    teachers = find_teachers(settings)
    teacher = open_teachers(teachers, table.classes, preprocessing)
    workers = [] if store else describe_workers(settings, device)
    for note in [*table.notes, *_describe_copies(table, store), *describe_leaks(teachers, table), *workers, *_describe_skipped(table)]:
        on_event(Note("data", note))
    set_seed(settings.seed)
    dls = build_loaders(table, preprocessing, settings, device, store)
    learn = build_learner(dls, settings, weights, compute_class_weights(table, settings, device))
    build.check_sizes(learn.model[0], settings)
    if teacher:
        move_network(teacher, device)
    with (
        share_cores(device),
        choose_algorithms(device, settings.deterministic),
        tempfile.TemporaryDirectory() as scratch,
    ):  # fastai's lr_find saves a copy of the model below learn.path
        learn.path = Path(scratch)
        yield Session(table, store, weights, preprocessing, learn, journal or Journal(), on_event, callbacks, teacher)


def fit(session: Session, settings: Settings) -> tuple[list[Phase], Features | None]:
    """Fit the phases of the settings' strategy in order. Phases that the journal lists as finished are loaded instead.

    Returns the phases, and the cached features of the last phase if its head predicts from them (partial fine-tuning), else None.
    Raises TrainingError, or KeyboardInterrupt after Ctrl-C.

    >>> with prepare(task, settings, ignore_event) as session:  # doctest: +SKIP
    ...     phases, _ = fit(session, settings)
    """
    phases: list[Phase] = []
    features = None
    for plan in get_strategy(settings.strategy).phases(session, settings):
        phase = processes.broadcast(checkpoints.load_phase(session.journal, plan.name, session.learn.model, session.on_event))
        if phase:
            features = plan.features() if plan.features else None
        elif plan.parallel or not processes.rank():
            phase, features = fit_within_memory(session, plan, settings, phases[-1] if phases else None)
        phase = processes.broadcast(phase)
        session.journal.facts.halvings = processes.broadcast(session.journal.facts.halvings)  # one process may have run the phase alone
        processes.broadcast_tensors(session.learn.model.state_dict().values())
        phases.append(cast(Phase, phase))
    return phases, features


def fit_within_memory(session: Session, plan: PhasePlan, settings: Settings, before: Phase | None) -> tuple[Phase, Features | None]:
    """Fit a phase as `run_within_memory` does. `before` is the phase before, if any."""

    def run(opened: OpenPhase, attempt: Settings) -> tuple[Phase, Features | None]:
        return fit_phase(session, plan, opened, attempt, before), opened.features

    return run_within_memory(session, plan, settings, run)


def run_within_memory(session: Session, plan: PhasePlan, settings: Settings, run: Callable[[OpenPhase, Settings], T]) -> T:
    """Open a phase and run a function on it. After an out-of-memory error, restart with half the batch and twice the accumulated batches.

    Raises TrainingError if memory does not suffice for MIN_BATCH images, or with `--no-auto-bs`.
    """
    initial, loss_func, journal = copy_state(session.learn.model), session.learn.loss_func, session.journal
    while True:
        attempt = _halve_batch(settings, journal.facts.halvings)
        collect_garbage(session.learn.dls.device)  # of the phase before
        try:
            return _run_attempt(plan, attempt, run)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if attempt.bs <= MIN_BATCH or not settings.auto_bs:
                found = f"out of memory on {session.learn.dls.device} at --bs {attempt.bs}: {first_line(error)}"
                raise TrainingError(found, "Use a smaller --bs or --size") from None
            if plan.parallel and processes.world_size() > 1:  # the others wait for this process
                message = f"out of memory in process {processes.rank()} at --bs {attempt.bs}"
                raise processes.HalveBatchError(message, "Use a smaller --bs or --size", plan.name) from None
        journal.facts.halvings += 1
        journal.write()
        checkpoints.remove_checkpoints(journal, plan.name)
        _release_failed_fit(session.learn)
        session.learn.model.load_state_dict(initial)
        session.learn.loss_func = loss_func  # mixup replaces it until the end of a fit
        session.on_event(Note(plan.name, f"out of memory with {attempt.bs} images in a batch: using half as many, and twice as many batches per step"))


def _run_attempt(plan: PhasePlan, attempt: Settings, run: Callable[[OpenPhase, Settings], T]) -> T:
    """Open a phase and run a function on it. The Learner of a failed attempt is a variable of this function only, so that its memory can be freed."""
    with plan.open(attempt) as opened, open_data_parallel(opened.learn, attempt.sync_bn) if plan.parallel else nullcontext():
        return run(opened, attempt)


def _release_failed_fit(learn: Learner) -> None:
    """Free what an interrupted fit holds: the batch, the graph of the loss, gradients and optimizer."""
    learn.xb, learn.yb, learn.pred, learn.loss, learn.loss_grad = (None,), (None,), None, None, None
    learn.opt = None
    for parameter in learn.model.parameters():
        parameter.grad = None
    gc.collect()  # learners, loaders and callbacks refer to each other
    release_device_memory(learn.dls.device)


def _halve_batch(settings: Settings, times: int) -> Settings:
    bs = max(min(settings.bs, MIN_BATCH), settings.bs >> times)
    return replace(settings, bs=bs, accumulate=settings.accumulate * (settings.bs // bs))


def predict_valid(session: Session, settings: Settings, features: Features | None = None) -> Predictions:
    """Predict the valid split: by the head from `features` if they are given, else by the whole model from the images."""
    rows = session.table.part("valid")
    if features:
        return predict_from_features(features.valid, session.learn.model[1], rows, session.table.classes)
    release_memory()
    return predict_rows(session.learn.model, session.learn.dls, rows, session.table.classes, settings, session.on_event)


def _describe_copies(table: ImageTable, store: Store | None) -> list[str]:
    """Return a note on duplicate images; without a store they are not decoded yet, and not compared."""
    note = duplicates.describe_duplicates(table.rows, image_digests(store)) if store else ""
    return [f"{note}; tlfast data check lists them, --drop removes them"] if note else []


def _describe_skipped(table: ImageTable) -> list[str]:
    """Return a note on each of the first SKIPPED unreadable images, and one on the others."""
    notes = [f"skipped {image.path}: {image.reason}" for image in table.unreadable[:SKIPPED]]
    more = len(table.unreadable) - len(notes)
    return [*notes, f"skipped {more:,} more images that cannot be read; tlfast data check lists them"] if more else notes
