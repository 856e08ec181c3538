"""Checkpoints: finished phases, and the state within a phase. A resumed training gives the same result as one without interruption.

A checkpoint within a phase holds the model, the optimizer, all callbacks with a state, and every random generator. Resuming draws the batches of
the interrupted epoch again, skips those that were trained on, and then restores the state. With several processes, the first one writes the
checkpoint, with the random generators of all.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientAccumulation
from fastcore.foundation import L
from torch import nn

from ..core import Journal, Note, OnEvent, files
from ..core.errors import first_line
from ..core.files import convert_write_errors
from ..core.journal import list_states, name_state, parse_state
from . import processes
from .data_parallel import count_processes
from .types import FeaturePass, Phase, RateCurve, restore_row

KEPT = 2  # newest checkpoints of a phase; the second serves if the first is damaged
MIN_SECONDS = 5.0  # between checkpoints after epochs: an epoch of the head takes less
FORMER_NAMES = {"ProgressCallback": "Watch", "KeepEpoch": "KeepBest"}  # of callbacks, in checkpoints of earlier versions
FORMER_FIELDS = {"best_epoch": "kept_epoch"}  # of a phase


def save_phase(journal: Journal, phase: Phase, model: nn.Module, on_event: OnEvent) -> None:
    """Save a finished phase and the model after it, and remove the checkpoints within it. Without a journal folder nothing is saved."""
    if journal.folder and _write_state(journal.folder / name_state(phase.name), {"phase": asdict(phase), "model": model.state_dict()}, phase.name, on_event):
        remove_checkpoints(journal, phase.name)


def load_phase(journal: Journal, name: str, model: nn.Module, on_event: OnEvent) -> Phase | None:
    """Return a phase that finished before an interruption, and load its weights into `model`; None if it did not finish."""
    state = _read_state(journal.folder / name_state(name), name, on_event) if journal.folder else None
    if state is None:
        return None
    model.load_state_dict(state["model"])
    values = {FORMER_FIELDS.get(name, name): value for name, value in state["phase"].items()}
    types: dict[str, type[RateCurve | FeaturePass]] = {"curve": RateCurve, "features": FeaturePass}
    nested = {key: kind(**values[key]) if values[key] else None for key, kind in types.items()}
    return Phase(**{**values, **nested, "epochs": [restore_row(row) for row in values["epochs"]]})


def load_newest(journal: Journal, phase: str, on_event: OnEvent) -> dict[str, Any] | None:
    """Return the newest checkpoint of a phase that can be read; None without one."""
    states = (_read_state(path, phase, on_event) for path in _list_checkpoints(journal, phase))
    return next(filter(None, states), None)


def place_checkpoint(start: dict[str, Any], learn: Any) -> dict[str, Any]:
    """Return a checkpoint with the generators of this process, and with the batch at which as many images of the epoch were seen.

    It is a batch of the epoch also with few images, where the batches of several processes are smaller. With another number of processes than before,
    a process without generators keeps its own.
    """
    saved = start.get("processes", 1)  # earlier versions had one process
    batch = min(start["batch"] * saved // count_processes(learn), len(learn.dls.train))
    others = start.get("others", [])
    if not processes.rank():
        return {**start, "batch": batch}
    generators = others[processes.rank() - 1] if processes.rank() <= len(others) else dict.fromkeys(("random_of_epoch", "random"), _get_random_state())
    return {**start, "batch": batch, **generators}


def remove_checkpoints(journal: Journal, phase: str) -> None:
    """Remove the checkpoints within a phase."""
    for path in _list_checkpoints(journal, phase):
        path.unlink(missing_ok=True)


def _list_checkpoints(journal: Journal, phase: str) -> list[Path]:
    """Return the checkpoints within a phase, newest first."""
    if not journal.folder:
        return []
    parsed = [(path, *parse_state(path)) for path in reversed(list_states(journal.folder))]
    return [path for path, name, epochs in parsed if name == phase and epochs is not None]


def _write_state(path: Path, state: dict[str, Any], phase: str, on_event: OnEvent) -> bool:
    """Write a state atomically; report a failure as a note, because training can continue. Returns whether the file was written."""
    try:
        with convert_write_errors(path):
            files.write_atomic(path, lambda file: torch.save(state, file))
    except OSError as error:
        on_event(Note(phase, f"cannot write a checkpoint to {path.parent} ({error.strerror or error}); training continues without it"))
        return False
    return True


def _read_state(path: Path, phase: str, on_event: OnEvent) -> dict[str, Any] | None:
    """Return a saved state; None if there is none, or with a note if it cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file: torch, zipfile and pickle raise many types
        on_event(Note(phase, f"the checkpoint {path.name} cannot be read ({first_line(error)}): training continues from an earlier state"))
        return None
    return state


class SkipBatches(Callback):
    """Skip the batches of a resumed epoch that were trained on before the interruption; fastai skips whole epochs itself."""

    order = -50  # before callbacks that use the batch
    run_valid = False

    def __init__(self, start: dict[str, Any]) -> None:
        self.first, self.passed = start["epoch"], start["batch"]

    def before_batch(self) -> None:
        if self.training and self.epoch == self.first and self.iter < self.passed:
            raise CancelBatchException


class Checkpoints(Callback):
    """Write checkpoints of a fit: after epochs, every `minutes` minutes, and before an interruption; restore the state `start`.

    `interrupted` returns whether Ctrl-C was pressed; the fit then stops with KeyboardInterrupt after its checkpoint is written.
    """

    order = 95  # after all callbacks of a step

    def __init__(self, journal: Journal, phase: str, minutes: float, interrupted: Callable[[], bool], on_event: OnEvent, start: dict[str, Any] | None) -> None:
        self.journal, self.phase, self.interval, self.interrupted, self.on_event, self.start = journal, phase, 60 * minutes, interrupted, on_event, start
        self.earlier_seconds = start["seconds"] if start else 0.0  # of this fit, before the interruption
        self.started = self.last_saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of this fit, including those before an interruption."""
        return float(self.earlier_seconds + time.perf_counter() - self.started)

    def before_train(self) -> None:
        loader = self.dls.train
        if self.start:  # the first epoch that fastai does not skip
            loader.rng.setstate(_to_tuples(self.start["loader"]))
            _set_random_state(self.start["random_of_epoch"])
            if not self.start["batch"]:
                self._restore(self.start)
        self.loader, self.random_of_epoch = loader.rng.getstate(), _get_random_state()

    def after_batch(self) -> None:
        if not self.training:
            return
        if self.start:
            if self.iter == self.start["batch"] - 1:
                self._restore(self.start)
            return
        if self._is_due(self.interval):
            self._write(self.epoch, self.iter + 1)

    def after_epoch(self) -> None:
        if self.start or self.epoch + 1 == self.n_epoch:  # skipped, or the last epoch: the whole phase is saved next
            return
        if self._is_due(MIN_SECONDS):
            self._write(self.epoch + 1, 0)

    def _is_due(self, seconds: float) -> bool:
        """Return whether to write a checkpoint: `seconds` after the last one, or because the user interrupted. All processes decide together."""
        flags = self.interrupted() or processes.is_orphan(), time.perf_counter() - self.last_saved >= seconds
        self.stopping, late = processes.any_of(*flags) if count_processes(self.learn) > 1 else flags
        return self.stopping or late

    def _write(self, epoch: int, batch: int) -> None:
        """Save the state before `batch` of `epoch`, unless a loss was not finite, then stop if the user interrupted."""
        if batch:
            loader, random_of_epoch = self.loader, self.random_of_epoch
        else:
            loader, random_of_epoch = self.dls.train.rng.getstate(), _get_random_state()
        generators = {"random_of_epoch": random_of_epoch, "random": _get_random_state()}
        everywhere = processes.gather(generators) if count_processes(self.learn) > 1 else [generators]
        shared = {"processes": len(everywhere), "others": everywhere[1:]}
        state = {"epoch": epoch, "batch": batch, "loader": loader, "seconds": self.seconds, **everywhere[0], **shared}
        if math.isfinite(self.recorder.smooth_loss.val):  # StopAtNan may not have seen it yet
            self._save_checkpoint(state | _collect_state(self.learn))
        self.last_saved = time.perf_counter()
        if self.stopping:
            raise KeyboardInterrupt

    def _save_checkpoint(self, state: dict[str, Any]) -> None:
        if not self.journal.folder:
            return
        if not _write_state(self.journal.folder / name_state(self.phase, state["epoch"], state["batch"]), state, self.phase, self.on_event):
            return
        for old in _list_checkpoints(self.journal, self.phase)[KEPT:]:
            old.unlink(missing_ok=True)
        self.journal.facts.phase_epochs[self.phase] = self.n_epoch
        self.journal.write()

    def _restore(self, start: dict[str, Any]) -> None:
        for name in _restore_state(self.learn, start):
            self.on_event(Note(self.phase, f"the checkpoint has no state of the callback {name}: it starts anew"))
        _set_random_state(start["random"])
        self.start = None


def _collect_state(learn: Any) -> dict[str, Any]:
    """Return everything that a fit changes, as tensors, numbers, lists and dicts: `torch.load(weights_only=True)` reads it without executing code."""
    accumulation = _find_callback(learn, GradientAccumulation)
    pending = accumulation.count if accumulation else 0
    scaler = getattr(_find_callback(learn, MixedPrecision), "scaler", None)
    optimizer = learn.opt.state_dict()
    smooth = learn.recorder.smooth_loss
    return {
        "model": learn.model.state_dict(),
        "optimizer": {
            "state": [dict(values) for values in optimizer["state"]],
            "hypers": [{name: float(value) for name, value in group.items()} for group in optimizer["hypers"]],
        },
        "callbacks": {name: callback.state_dict() for name, callback in _stateful_callbacks(learn).items()},
        "smooth_loss": [smooth.count, float(smooth.val)],
        "train_iter": learn.train_iter,
        "pending": pending,
        "gradients": [p.grad for p in learn.model.parameters()] if pending else [],
        "scaler": scaler.state_dict() if scaler else {},
    }


def _restore_state(learn: Any, state: dict[str, Any]) -> list[str]:
    """Restore what `_collect_state` returns. Returns the names of the callbacks without a saved state."""
    learn.model.load_state_dict(state["model"])
    device = next(learn.model.parameters()).device
    optimizer = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in values.items()} for values in state["optimizer"]["state"]]
    learn.opt.load_state_dict({"state": optimizer, "hypers": L(state["optimizer"]["hypers"])})
    learn.train_iter = state["train_iter"]
    states = state["callbacks"]
    callbacks = _stateful_callbacks(learn)
    saved = {name: next((key for key in (name, FORMER_NAMES.get(name)) if key in states), None) for name in callbacks}
    for name, callback in callbacks.items():
        if saved[name]:
            callback.load_state_dict(states[saved[name]])
    smooth = learn.recorder.smooth_loss
    smooth.count, smooth.val = state["smooth_loss"][0], torch.tensor(state["smooth_loss"][1])
    if state["pending"]:
        _find_callback(learn, GradientAccumulation).count = state["pending"]
        for p, gradient in zip(learn.model.parameters(), state["gradients"], strict=True):
            p.grad = None if gradient is None else gradient.to(device)
    scaler = getattr(_find_callback(learn, MixedPrecision), "scaler", None)
    if state["scaler"] and scaler:  # without fp16 on another device there is none
        scaler.load_state_dict(state["scaler"])
    return [name for name in callbacks if not saved[name]]


def _find_callback(learn: Any, kind: type) -> Any:
    return next((callback for callback in learn.cbs if isinstance(callback, kind)), None)


def _stateful_callbacks(learn: Any) -> dict[str, Any]:
    """Return the callbacks with a state by the names of their classes; further ones of a class are numbered: "A", "A 2".

    The class is inspected, because an instance looks up missing attributes in the learner and the model.
    """
    named: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for callback in learn.cbs:
        name = type(callback).__name__
        if hasattr(type(callback), "load_state_dict"):
            counts[name] += 1
            named[name if counts[name] == 1 else f"{name} {counts[name]}"] = callback
    return named


# Random generators


_NumpyState = tuple[str, np.ndarray[Any, Any], int, int, float]


def _get_random_state() -> dict[str, Any]:
    """Return the state of every random generator that a training step may use."""
    kind, keys, position, has_gauss, cached = cast(_NumpyState, np.random.get_state())
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(_to_tuples(state["python"]))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for i, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):  # this machine may have fewer GPUs
        torch.cuda.set_rng_state(generator, i)
    if state.get("mps") is not None and torch.backends.mps.is_available():  # earlier versions did not save it
        torch.mps.set_rng_state(state["mps"])


def _to_tuples(state: Any) -> tuple[int, tuple[int, ...], float | None]:
    """Return the state of Python's generator, which a file holds as lists."""
    version, internal, gauss = state
    return version, tuple(internal), gauss
