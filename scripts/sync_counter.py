"""Count the calls of a training step for which the host waits for the device.

On CUDA torch reports them. Without a GPU, `StandIn` counts the calls that would wait: it takes the tensors of the training for tensors of a device,
except those that the step makes in main memory.
"""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tlfast.training import batch_augment, feature_learner, features, loaders
from tlfast.training.callbacks import mixup
from tlfast.training.callbacks.early_stopping import CHECKED_EVERY

FIRST, COUNTED = 3, 20  # steps before the counted ones, and counted steps; together fewer than CHECKED_EVERY
SKIPPED = ("torch/", "fasttransform/", "fastcore/", "scripts/sync_counter", "warnings.py", "torch_core")  # parts of files whose lines say little

DEVICE = torch.device("cpu", 0)  # of the stand-in: differs from torch.device("cpu")

# Functions that read values of a tensor, or whose result has a shape that depends on them.
WAITING = {
    *("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__", "__array__", "__contains__", "is_nonzero", "equal", "allclose"),
    *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "repeat_interleave"),
    *("solve", "linalg_solve", "inv", "linalg_inv", "inverse", "cholesky", "linalg_cholesky"),  # they check for singular matrices
}


class SyncCounter(Callback):
    """Count the waiting calls of COUNTED training steps by their place in the code, then stop the fit.

    Open and fit the phase within `count_waiting`.
    """

    order = -100  # before all callbacks, so that nothing of the end of an epoch is counted
    run_valid = False

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self.steps, self.counts = 0, False

    def before_train(self) -> None:
        self.learn.stop_at_nan.every = CHECKED_EVERY  # as on a GPU
        self._switch()

    def after_batch(self) -> None:
        self.steps += 1
        self._switch()
        if self.steps == FIRST + COUNTED:
            raise CancelFitException

    def after_train(self) -> None:
        self._switch(False)

    def after_cancel_fit(self) -> None:
        self._switch(False)

    def _switch(self, training: bool = True) -> None:
        self.counts = on = training and FIRST <= self.steps < FIRST + COUNTED
        if self.dls.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn" if on else "default")

    def count(self) -> None:
        """Count a call of the code that runs."""
        if self.counts:
            self.places[_find_place()] += 1


def _find_place() -> str:
    """Return the line that called, as "module.py:line function"."""
    frame = next(frame for frame in reversed(traceback.extract_stack()) if not any(part in frame.filename for part in SKIPPED))
    return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"


@contextmanager
def count_waiting(counter: SyncCounter, device: torch.device) -> Iterator[None]:
    """Report the waiting calls within the block to `counter`; a phase must be opened and fitted in it."""
    if device.type == "cuda":
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            show = warnings.showwarning
            warnings.showwarning = lambda message, *rest: counter.count() if "synchronizing" in str(message) else show(message, *rest)
            yield
        return
    with ExitStack() as stack:
        for module in (batch_augment, feature_learner, loaders, mixup):
            stack.enter_context(mock.patch.object(module, "copy_to_device", _copy_to_stand_in))
        stack.enter_context(mock.patch.object(features, "fits_on_gpu", lambda nbytes, device: True))
        stack.enter_context(StandIn(counter.count))
        yield


def use_stand_in(dls: DataLoaders) -> None:
    """Let loaders name the device of the stand-in. What they keep in main memory stays there."""
    dls.to(DEVICE)
    for loader in dls.loaders:
        for x in (loader.indices, loader.targets):
            x.in_main_memory = True


def _copy_to_stand_in(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    with torch._C.DisableTorchFunction():
        return x.clone()


class StandIn(TorchFunctionMode):
    """Call `count` for each call that would wait if the tensors from before it were on a device.

    A tensor is in main memory if it was made without the device DEVICE, and not from a tensor on it. The attribute `device` says so.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cpu") if _in_main_memory(args[0]) else DEVICE
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if _would_wait(getattr(func, "__name__", ""), args, kwargs, tensors):
            self.count()
        if not _names_device(args, kwargs) and all(map(_in_main_memory, tensors)):
            for x in tree_leaves(result):
                if isinstance(x, torch.Tensor):
                    x.in_main_memory = True  # type: ignore[attr-defined]
        return result


def _in_main_memory(x: torch.Tensor) -> bool:
    return bool(x.__dict__.get("in_main_memory", False))


def _names_device(args: Any, kwargs: dict[str, Any]) -> bool:
    return any(x == DEVICE for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device))


def _would_wait(name: str, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> bool:
    if all(map(_in_main_memory, tensors)):
        return name in ("tensor", "as_tensor", "to") and _names_device(args, kwargs)  # a copy from main memory that is not pinned
    if name == "to":
        return any(isinstance(x, torch.device) and x != DEVICE for x in tree_leaves((args[1:], kwargs)))
    if name in ("__getitem__", "__setitem__"):
        indices = tree_leaves(args[1])
        return any(isinstance(i, torch.Tensor) and (_in_main_memory(i) or i.dtype == torch.bool) for i in indices) or isinstance(args[1], list)
    return name in WAITING or (name == "where" and len(args) == 1)
