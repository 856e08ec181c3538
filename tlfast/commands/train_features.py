"""`tlfast train --engine`: the frozen layers run on all machines of an engine, one view of the images in each task, before the head is trained on one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import nn

from ..core import OnEvent, Progress, Settings, UsageError, cache, ignore_event
from ..core.journal import read_journal
from ..core.setting_checks import AUTO_DEPTH
from ..data import Task
from ..distributed import Engine
from ..training import Session, get_strategy, prepare
from ..training.batch_size import use_default_batch
from ..training.features import KIND, extract_view, find_missing, pass_precision
from .elsewhere import check_arrival, run_elsewhere
from .train import check_start


def compute_features(task: Task, settings: Settings, engine: Engine, on_event: OnEvent = ignore_event, resume: str = "") -> int:
    """Compute the cached features, or activations, of a training by an engine; the training itself then finds them in the cache.

    `resume` is that of `train_run`. Returns the number of views that were computed. Raises TlfastError, also if a machine does not share the cache.
    """
    check_start(settings, resume)
    settings = use_default_batch(settings)  # of the passes; the training settles its own
    missing, settings = _find_missing(task, settings, on_event, resume)
    on_event(Progress("backbone: views", 0, len(missing)))
    with closing(run_elsewhere(engine, task, partial(_compute_view, settings), missing)) as results:
        for done, (number, _, machine) in enumerate(results, 1):
            check_arrival(partial(cache.find, KIND, missing[number]), machine)
            on_event(Progress("backbone: views", done, len(missing)))
    return len(missing)


def _find_missing(task: Task, settings: Settings, on_event: OnEvent, resume: str) -> tuple[dict[int, str], Settings]:
    """Return number -> name in the cache of the views that are not there, and the settings of all tasks.

    These have the precision of the frozen layers, and the depth and the views for which there is room; the training chooses the same.
    """
    if settings.depth == AUTO_DEPTH or settings.minutes is not None:
        raise UsageError("--engine ray is given with an open depth: it is chosen by the speed of this machine", "Give a depth, such as --depth 2")
    with prepare(task, settings, on_event, read_journal(settings.out, settings.task, resume)) as session:
        if not session.on_disk:
            raise UsageError(f"--engine ray needs cached features on a disk, but --store is {settings.store}", "Use --store disk")
        settings, _ = get_strategy(settings.strategy).resolve(session, settings)
        frozen = _find_frozen(session, settings)
        settings = replace(settings, amp=cast(Any, pass_precision(frozen, session, settings)))
        return find_missing(frozen, session, settings), settings


def _find_frozen(session: Session, settings: Settings) -> nn.Module:
    """Return the layers whose output is cached. Raises UsageError if there are none."""
    frozen = get_strategy(settings.strategy).find_frozen(session, settings)
    if frozen is None:
        found = f"--engine ray computes the output of frozen layers, and {settings.strategy} training with these settings has none to share"
        raise UsageError(found, "Use --partial or --depth N; for all layers on several GPUs use --gpus")
    return frozen


def _compute_view(settings: Settings, task: Task, number: int) -> None:
    with prepare(task, settings, ignore_event) as session:
        extract_view(_find_frozen(session, settings), session, settings, number)
