"""Calls that trace and run networks, one at a time: torch.fx changes `nn.Module` for all threads of a process while it traces.

They set the seeds of random, numpy and torch, which are those of the whole process too.
"""

from __future__ import annotations

import functools
import random
import sys
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
    """Let a function leave the random numbers of its caller as they are: without it the next ones would be the same after every training of a seed."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with _random_states_restored():
            return function(*arguments, **keywords)

    return cast(F, call)


@contextmanager
def _random_states_restored() -> Iterator[None]:
    before, numpy_before, torch = random.getstate(), np.random.get_state(), sys.modules.get("torch")
    try:
        if torch is None:  # nobody has drawn from it
            yield
        else:
            with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
                yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
