"""Reading of the next batches while the current one trains, and their copies to a device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from ..models import copy_to_device

READ_AHEAD = 2  # batches
Batch = tuple[torch.Tensor, ...]
T = TypeVar("T")
R = TypeVar("R")


def read_ahead(read: Callable[[T], Batch], items: Iterable[T], device: torch.device) -> Iterator[Batch]:
    """Yield `read(item)` on a device for each item, in order; a second thread reads and copies the next READ_AHEAD items.

    Copies to CUDA are made on a stream of their own, so that they overlap with the training. Copies to MPS are made in the first thread: two threads
    that use MPS end the process (pytorch issue 197805). `read` must not compute with torch for a CPU, where the threads of torch wait actively and would
    compete with the training, and not on MPS.

    >>> list(read_ahead(lambda item: (torch.tensor(item),), [1, 2], torch.device("cpu")))
    [(tensor(1),), (tensor(2),)]
    """
    if device.type == "cuda":
        yield from _copy_on_stream(read, items, device)
    else:
        for batch in _run_ahead(read, items):
            yield tuple(x.to(device) for x in batch)


def _copy_on_stream(read: Callable[[T], Batch], items: Iterable[T], device: torch.device) -> Iterator[Batch]:
    """Copy the batches of `read_ahead` to CUDA. The second thread gets the device of this process: a new thread uses memory of GPU 0."""
    stream = torch.cuda.Stream(device)

    def read_and_copy(item: T) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            return tuple(copy_to_device(x, device) for x in read(item)), stream.record_event()

    for batch, copied in _run_ahead(read_and_copy, items, partial(torch.cuda.set_device, stream.device)):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for x in batch:
            x.record_stream(current)  # so that its memory is not used again before the training step has read it
        yield batch


def _run_ahead(run: Callable[[T], R], items: Iterable[T], prepare: Callable[[], None] = lambda: None) -> Iterator[R]:
    """Yield `run(item)` for each item, computed in a second thread, which calls `prepare` first."""
    with ThreadPoolExecutor(1, initializer=prepare) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(run, item))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
