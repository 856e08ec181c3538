"""Phases that train on batches of images, in place of cached features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core import Settings
from ..core.system import release_memory
from .amp import settle_step_precision, use_precision
from .callbacks.from_settings import build_callbacks
from .callbacks.input import NetworkInput
from .compilation import use_compilation
from .distillation import build_distillation
from .phase import OpenPhase
from .session import Session


@contextmanager
def open_images(session: Session, attempt: Settings) -> Iterator[OpenPhase]:
    """Prepare the session's Learner to train its trainable layers on images.

    `attempt` are the settings of this attempt: after an out-of-memory error, with half the batch.
    """
    learn = session.learn
    session.use_batch_size(attempt)
    release_memory()  # the phase before used blocks of other sizes
    precision = settle_step_precision(session, learn.model, attempt, (3, attempt.size, attempt.size))
    callbacks = [NetworkInput(), *build_distillation(session, attempt), *build_callbacks(attempt)]
    with use_compilation(learn.model, attempt.compile), use_precision(learn, precision), learn.added_cbs(callbacks):
        yield OpenPhase(learn, precision)
