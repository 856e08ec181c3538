"""Calls that trace and run networks, one at a time: torch.fx changes `nn.Module` for all threads of a process while it traces."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
_lock = threading.RLock()


def one_at_a_time(function: F) -> F:
    """Let calls of a function wait for each other, and for those of all other functions with this decorator."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with _lock:
            return function(*arguments, **keywords)

    return cast(F, call)
