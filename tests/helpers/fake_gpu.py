"""Tensors on a GPU that does not exist. Fake tensors have a device and a shape, and no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

GPU = torch.device("cuda:0")


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Make new tensors fake, so that operations check devices as on a GPU. Build networks inside `with torch.device(gpu)`."""
    with FakeTensorMode():
        yield GPU
