"""Progress of a fit as events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import fastai.callback.progress  # noqa: F401 (adds no_bar to Learner)
from fastai.callback.core import Callback
from fastai.learner import Learner

from ...core import OnEvent, Progress
from ..types import EPOCH_VALUES, EpochEnd, EpochRow, restore_row


@contextmanager
def silence_fastai(learn: Learner) -> Iterator[None]:
    """Silence fastai's progress bar and table; events replace them."""
    with learn.no_bar(), learn.no_logging():
        yield


class ProgressCallback(Callback):
    """Report each step and epoch to `on_event`; count images and the seconds of training on them.

    For a run of the learning-rate finder, `steps` is the number of its steps, and epochs are not reported.
    """

    order = 60  # after Recorder, whose values it reads

    def __init__(self, phase: str, on_event: OnEvent, label: str = "", steps: int = 0) -> None:
        self.phase, self.on_event, self.label, self.steps = phase, on_event, label or phase, steps
        self.rows: list[EpochRow] = []
        self.step_ends: list[float] = []
        self.images, self.seconds, self.step, self.total = 0, 0.0, 0, 0

    @property
    def step_seconds(self) -> float:
        """Seconds per image of a training step: the median, because the first steps allocate memory; 0 with fewer than two steps."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.step_ends)) * self.step / self.images if self.step > 1 else 0.0

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def before_train(self) -> None:
        self.train_started = time.perf_counter()

    def after_train(self) -> None:
        self.seconds += time.perf_counter() - self.train_started

    def after_batch(self) -> None:
        if not self.training:
            return
        self.step += 1
        if self.steps:
            self.step_ends.append(time.perf_counter())
        self.images += len(self.learn.yb[0])
        self.total = self.steps or self.n_epoch * self.n_iter
        self.on_event(Progress(self.label, self.step, self.total))

    def after_epoch(self) -> None:
        if self.steps or not self.recorder.values[-1]:  # an epoch of the finder, or complete before an interruption
            return
        seconds = time.perf_counter() - self.started
        values = dict(zip(EPOCH_VALUES, map(float, self.recorder.values[-1]), strict=True))
        row = EpochRow(phase=self.phase, epoch=len(self.rows) + 1, seconds=seconds, **values)
        self.rows.append(row)
        self.on_event(EpochEnd(self.phase, row))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self.rows], "images": self.images, "seconds": self.seconds, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [restore_row(row) for row in state["rows"]]
        self.images, self.seconds, self.step = state["images"], state["seconds"], state["step"]
