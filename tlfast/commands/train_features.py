"""`tlfast train --engine`: the frozen layers run on all machines of an engine, one view of the images in each task, before the head is trained on one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from torch import nn

from ..core import OnEvent, Progress, Settings, UsageError, ignore_event
from ..core.setting_checks import AUTO_DEPTH
from ..data import Task
from ..distributed import Engine
from ..training import Session, get_strategy, prepare
from ..training.batch_size import use_default_batch
from ..training.features import count_missing, extract_view, pass_precision
from .elsewhere import pack_task, unpack_task


def compute_features(task: Task, settings: Settings, engine: Engine, on_event: OnEvent = ignore_event) -> int:
    """Compute the cached features, or activations, of a training by an engine; the training itself then finds them in the cache.

    Returns the number of views that were computed. All machines must share the cache. Raises TlfastError.
    """
    settings = use_default_batch(settings)  # of the passes; the training settles its own
    missing, precision = _list_missing(task, settings, on_event)
    work = partial(_compute_view, pack_task(task), replace(settings, amp=cast(Any, precision)))
    on_event(Progress("backbone: views", 0, len(missing)))
    for done, _ in enumerate(engine.run(work, missing), 1):
        on_event(Progress("backbone: views", done, len(missing)))
    return len(missing)


def _list_missing(task: Task, settings: Settings, on_event: OnEvent) -> tuple[Sequence[int], str]:
    """Return the numbers of the views that are not cached, and the precision of the frozen layers, which all tasks use."""
    if settings.depth == AUTO_DEPTH or settings.minutes is not None:
        raise UsageError("--engine ray is given with an open depth: it is chosen by the speed of this machine", "Give a depth, such as --depth 2")
    with prepare(task, settings, on_event) as session:
        if not session.on_disk:
            raise UsageError(f"--engine ray needs cached features on a disk, but --store is {settings.store}", "Use --store disk")
        frozen = _find_frozen(session, settings)
        counts = count_missing(frozen, session, settings)
        return [number for number, count in enumerate(counts) if count], pass_precision(frozen, session, settings)


def _find_frozen(session: Session, settings: Settings) -> nn.Module:
    """Return the layers whose output is cached. Raises UsageError if there are none."""
    frozen = get_strategy(settings.strategy).find_frozen(session, settings)
    if frozen is None:
        found = f"--engine ray computes the output of frozen layers, and {settings.strategy} training with these settings has none to share"
        raise UsageError(found, "Use --partial or --depth N; for all layers on several GPUs use --gpus")
    return frozen


def _compute_view(task: Task | str, settings: Settings, number: int) -> None:
    with prepare(unpack_task(task), settings, ignore_event) as session:
        extract_view(_find_frozen(session, settings), session, settings, number)
