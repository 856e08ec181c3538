"""States of a training on disk: after each phase, after each epoch, and in between; enough to go on as if nothing had happened.

Of a fit that is under way a checkpoint holds the model, the optimizer, all callbacks that have a state, and every random generator. Going on
means to draw the same batches again from where the epoch began, without training on them, and to put all of that back where they end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientAccumulation
from fastcore.foundation import L
from torch import nn

from ..core import files
from ..core.events import Note, OnEvent
from ..core.files import convert_write_errors
from ..core.journal import Journal, list_states
from .types import EpochRow, FeaturePass, Phase, RateCurve

KEPT = 2  # checkpoints of a phase
LEAST_SECONDS = 5.0  # between two: epochs of a head take less


def save_phase(journal: Journal, phase: Phase, model: nn.Module, on_event: OnEvent) -> None:
    """Keep a phase that is done, and the model as it left it; its checkpoints have served."""
    if journal.folder and _save(journal.folder / _file_name(phase.name), {"phase": asdict(phase), "model": model.state_dict()}, phase.name, on_event):
        remove_checkpoints(journal, phase.name)


def load_phase(journal: Journal, name: str, model: nn.Module) -> Phase | None:
    """Return a phase that was done before the interruption, the model as it left it; None where it was not."""
    state = _load(journal.folder / _file_name(name)) if journal.folder else None
    if state is None:
        return None
    model.load_state_dict(state["model"])
    values = state["phase"]
    made = {"curve": RateCurve, "features": FeaturePass}
    nested = {key: kind(**values[key]) if values[key] else None for key, kind in made.items()}
    return Phase(**{**values, **nested, "epochs": [EpochRow(**row) for row in values["epochs"]]})


def load_newest(journal: Journal, phase: str) -> dict[str, Any] | None:
    """Return the last checkpoint of a phase that can be read; None where there is none."""
    return next(filter(None, map(_load, _list_checkpoints(journal, phase))), None)


def remove_checkpoints(journal: Journal, phase: str) -> None:
    """Remove the checkpoints of a phase that begins anew."""
    for path in _list_checkpoints(journal, phase):
        path.unlink(missing_ok=True)


def _list_checkpoints(journal: Journal, phase: str) -> list[Path]:
    """Return the checkpoints of a phase, the newest first; their names sort by epoch and batch."""
    prefix = f"{phase.replace(' ', '-')}.at-"
    return sorted((path for path in list_states(journal.folder) if path.name.startswith(prefix)), reverse=True) if journal.folder else []


def _file_name(phase: str) -> str:
    return f"{phase.replace(' ', '-')}.pt"


def _save(path: Path, state: dict[str, Any], phase: str, on_event: OnEvent) -> bool:
    """Write a state, whole or not at all; where that fails say so, for the training goes on. Returns whether it was written."""
    try:
        with convert_write_errors(path):
            files.write_atomic(path, lambda file: torch.save(state, file))
    except OSError as error:
        on_event(Note(phase, f"no checkpoint could be written to {path.parent} ({error.strerror or error}); the training goes on"))
        return False
    return True


def _load(path: Path) -> dict[str, Any] | None:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # there is none, or a damaged one, of which torch, zipfile and pickle complain each in its own way
        return None


class SkipBatches(Callback):
    """Passes over the batches of the first epoch of a resumed fit that were trained on before; the epochs before it fastai skips itself."""

    order = -50  # before all that would do something with a batch
    run_valid = False

    def __init__(self, start: dict[str, Any]) -> None:
        self.first, self.passed = start["epoch"], start["batch"]

    def before_batch(self) -> None:
        if self.training and self.epoch == self.first and self.iter < self.passed:
            raise CancelBatchException


class Checkpoints(Callback):
    """Writes checkpoints of a fit: after each epoch, every so many minutes, and before it stops where that was asked for.

    Given the state of an earlier one, it puts that back where it belongs.
    """

    order = 95  # after all that belong to a step

    def __init__(self, journal: Journal, phase: str, minutes: float, asked: Callable[[], bool], on_event: OnEvent, start: dict[str, Any] | None) -> None:
        self.journal, self.phase, self.every, self.asked, self.on_event, self.start = journal, phase, 60 * minutes, asked, on_event, start
        self.earlier = start["seconds"] if start else 0.0  # that the fit took before it was interrupted
        self.began = self.saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of this fit, those before an interruption counted."""
        return self.earlier + time.perf_counter() - self.began

    def before_train(self) -> None:
        loader = self.dls.train
        if self.start:  # this is the first epoch that is not skipped
            loader.rng.setstate(_to_tuples(self.start["loader"]))
            _set_random_state(self.start["random_of_epoch"])
            if not self.start["batch"]:
                self._restore()
        self.loader, self.random_of_epoch = loader.rng.getstate(), _get_random_state()

    def after_batch(self) -> None:
        if not self.training:
            return
        if self.start:
            if self.iter == self.start["batch"] - 1:
                self._restore()
            return
        if self.asked() or time.perf_counter() - self.saved >= self.every:
            self._write(self.epoch, self.iter + 1)

    def after_epoch(self) -> None:
        if self.start or self.epoch + 1 == self.n_epoch:  # an epoch that was skipped, or the last: what follows keeps the whole phase
            return
        if self.asked() or time.perf_counter() - self.saved >= LEAST_SECONDS:
            self._write(self.epoch + 1, 0)

    def _write(self, epoch: int, batch: int) -> None:
        """Keep the state from which `batch` of `epoch` comes next; then stop if that was asked for."""
        if batch:
            loader, random_of_epoch = self.loader, self.random_of_epoch
        else:
            loader, random_of_epoch = self.dls.train.rng.getstate(), _get_random_state()
        state = {"epoch": epoch, "batch": batch, "loader": loader, "random_of_epoch": random_of_epoch, "random": _get_random_state(), "seconds": self.seconds}
        self._keep(state | _collect_state(self.learn))
        self.saved = time.perf_counter()
        if self.asked():
            raise KeyboardInterrupt

    def _keep(self, state: dict[str, Any]) -> None:
        if not self.journal.folder:
            return
        if not _save(self.journal.folder / _file_name(f"{self.phase}.at-{state['epoch']:05d}-{state['batch']:07d}"), state, self.phase, self.on_event):
            return
        for old in _list_checkpoints(self.journal, self.phase)[KEPT:]:
            old.unlink(missing_ok=True)
        self.journal.write()

    def _restore(self) -> None:
        _restore_state(self.learn, self.start)
        _set_random_state(self.start["random"])
        self.start = None


def _collect_state(learn: Any) -> dict[str, Any]:
    """Return all that a fit changes, as tensors, numbers, lists and dicts, which can be read without executing anything."""
    accumulated = _find_callback(learn, GradientAccumulation)
    pending = accumulated.count if accumulated else 0
    scaler = getattr(_find_callback(learn, MixedPrecision), "scaler", None)
    optimizer = learn.opt.state_dict()
    smooth = learn.recorder.smooth_loss
    return {
        "model": learn.model.state_dict(),
        "optimizer": {"state": [dict(each) for each in optimizer["state"]], "hypers": [{k: float(v) for k, v in each.items()} for each in optimizer["hypers"]]},
        "callbacks": {type(each).__name__: each.state_dict() for each in _stateful_callbacks(learn)},
        "smooth_loss": [smooth.count, float(smooth.val)],
        "train_iter": learn.train_iter,
        "pending": pending,
        "gradients": [p.grad for p in learn.model.parameters()] if pending else [],
        "scaler": scaler.state_dict() if scaler else {},
    }


def _restore_state(learn: Any, state: dict[str, Any]) -> None:
    learn.model.load_state_dict(state["model"])
    device = next(learn.model.parameters()).device
    moved = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in each.items()} for each in state["optimizer"]["state"]]
    learn.opt.load_state_dict({"state": moved, "hypers": L(state["optimizer"]["hypers"])})
    for each in _stateful_callbacks(learn):
        each.load_state_dict(state["callbacks"][type(each).__name__])
    smooth = learn.recorder.smooth_loss
    smooth.count, smooth.val = state["smooth_loss"][0], torch.tensor(state["smooth_loss"][1], device=device)
    learn.train_iter = state["train_iter"]
    if state["pending"]:
        _find_callback(learn, GradientAccumulation).count = state["pending"]
        for p, gradient in zip(learn.model.parameters(), state["gradients"], strict=True):
            p.grad = None if gradient is None else gradient.to(device)
    if state["scaler"]:
        _find_callback(learn, MixedPrecision).scaler.load_state_dict(state["scaler"])


def _find_callback(learn: Any, kind: type) -> Any:
    return next((each for each in learn.cbs if isinstance(each, kind)), None)


def _stateful_callbacks(learn: Any) -> list[Any]:
    """Return our callbacks that have a state; asked of their class, for a callback hands what it has not to the learner and that to the model."""
    return [each for each in learn.cbs if hasattr(type(each), "load_state_dict")]


# Random generators


def _get_random_state() -> dict[str, Any]:
    """Return the state of every generator that a training step may draw from."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(_to_tuples(state["python"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _to_tuples(state: Any) -> tuple:
    version, internal, gauss = state
    return version, tuple(internal), gauss
