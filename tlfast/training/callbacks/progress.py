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
from ..data_parallel import count_processes
from ..types import EPOCH_VALUES, LOGGED_EVERY, EpochEnd, EpochRow, StepEnd, restore_row


@contextmanager
def silence_fastai(learn: Learner) -> Iterator[None]:
    """Silence fastai's progress bar and table; events replace them."""
    with learn.no_bar(), learn.no_logging():
        yield


class ProgressCallback(Callback):
    """Report progress, steps and epochs to `on_event`; count images and the seconds of training on them.

    For a run of the learning-rate finder, `steps` is the number of its steps, and epochs are not reported.
    """

    order = 60  # after Recorder, whose values it reads

    def __init__(self, phase: str, on_event: OnEvent, label: str = "", steps: int = 0) -> None:
        self.phase, self.on_event, self.label, self.steps = phase, on_event, label or phase, steps
        self.rows: list[EpochRow] = []
        self.step_ends: list[float] = []
        self.images, self.seconds, self.step, self.total = 0, 0.0, 0, 0
        self.skipped = True  # the batch was trained on before an interruption
        self.started = self.train_started = time.perf_counter()
        self.epoch_images = 0

    @property
    def step_seconds(self) -> float:
        """Seconds per image of a training step: the median, because the first steps allocate memory; 0 with fewer than two steps."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.step_ends)) * self.step / self.images if self.step > 1 else 0.0

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def before_train(self) -> None:
        self.train_started = self.window_started = time.perf_counter()
        self.epoch_images = self.window_images = 0

    def after_train(self) -> None:
        self.train_seconds = time.perf_counter() - self.train_started
        self.seconds += self.train_seconds

    def after_pred(self) -> None:
        self.skipped = not self.training

    def after_batch(self) -> None:
        if not self.training:
            return
        self.step += 1
        if self.steps:
            self.step_ends.append(time.perf_counter())
        images = len(self.learn.yb[0]) * count_processes(self.learn)
        self.images += images
        self.total = self.steps or self.n_epoch * self.n_iter
        self.on_event(Progress(self.label, self.step, self.total))
        if not self.steps and not self.skipped:
            self._report_step(images)
        self.skipped = True

    def _report_step(self, images: int) -> None:
        self.epoch_images += images
        self.window_images += images
        if self.step % LOGGED_EVERY == 0:
            now = time.perf_counter()
            self.on_event(self._describe_step(self.window_images / (now - self.window_started)))
            self.window_images, self.window_started = 0, now

    def _describe_step(self, images_per_second: float) -> StepEnd:
        rates = [float(group["lr"]) for group in self.opt.hypers]
        loss = float(self.recorder.smooth_loss.value)
        return StepEnd(self.phase, self.step, self.total, loss, rates[-1], rates[0], images_per_second)

    def after_epoch(self) -> None:
        if self.steps or not self.recorder.values[-1]:  # an epoch of the finder, or complete before an interruption
            return
        seconds = time.perf_counter() - self.started
        values = dict(zip(EPOCH_VALUES, map(float, self.recorder.values[-1]), strict=True))
        row = EpochRow(phase=self.phase, epoch=len(self.rows) + 1, seconds=seconds, **values)
        self.rows.append(row)
        self.on_event(EpochEnd(self.phase, row, self._describe_step(self.epoch_images / self.train_seconds)))
        self.started = self.train_started = time.perf_counter()  # of the next epoch, for a checkpoint before it
        self.epoch_images = 0

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        epoch = {"epoch_images": self.epoch_images, "epoch_seconds": now - self.started, "epoch_train_seconds": now - self.train_started}
        return {"rows": [asdict(row) for row in self.rows], "images": self.images, "seconds": self.seconds, "step": self.step, **epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = [restore_row(row) for row in state["rows"]]
        self.images, self.seconds, self.step = state["images"], state["seconds"], state["step"]
        now = time.perf_counter()  # the epoch goes on; checkpoints of earlier versions lack its seconds
        self.started, self.train_started = now - state.get("epoch_seconds", 0.0), now - state.get("epoch_train_seconds", 0.0)
        self.epoch_images = state.get("epoch_images", 0)
