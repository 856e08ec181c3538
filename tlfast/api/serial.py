"""Calls that trace and run networks, one at a time: torch.fx changes `nn.Module` for all threads of a process while it traces.

They set the seeds of random, numpy and torch, which are those of the whole process too.
"""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.RLock()


def one_at_a_time(function: F) -> F:
    """Let calls of a function wait for each other, and for those of all other functions with this decorator."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with _lock:
            return function(*arguments, **keywords)

    return cast(F, call)


def keep_random_states(function: F) -> F:
    """Let a function leave the generators of random, numpy and torch as they were. Without it, each training would reset them to the same state."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with _random_states_restored():
            return function(*arguments, **keywords)

    return cast(F, call)


@contextmanager
def _random_states_restored() -> Iterator[None]:
    import torch  # imported here: the functions need it, but not `import tlfast`

    before, numpy_before, seed = random.getstate(), np.random.get_state(), torch.initial_seed()
    on_cuda = torch.cuda.is_initialized()
    of_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if on_cuda else ()):
            yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
        if torch.cuda.is_initialized() and not on_cuda:
            torch.cuda.manual_seed_all(seed)  # as the first use of CUDA would have done
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)
