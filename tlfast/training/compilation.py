"""Compilation of a model for the duration of a phase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def use_compilation(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Within the block, run `model` compiled by torch.compile if `wanted`. Exports trace the model itself, and cannot trace a compiled one."""
    if not wanted:
        yield
        return
    model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None  # torch has no function for this
        torch._dynamo.reset()  # the compiled code of all models counts against one limit, beyond which torch does not compile
