"""The processes of one training on several GPUs: their numbers, and the exchange of decisions, objects and tensors.

torchrun starts the processes and gives each one its rank in the environment. In a single process, the functions return
their argument.
"""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from ..core import Settings, TlfastError, TrainingError, UsageError, cache
from ..core.system import count_cores, limit_cores
from ..core.torchrun import is_started_by_torchrun

T = TypeVar("T")

_parent = os.getppid()
_numbers = itertools.count()  # of the values that were sent by `run_in_first`
_stores: list[Any] = []  # kept open, because other processes may still read

PEER_LOST = "another process of this training has ended"
TIMEOUT = timedelta(days=7)  # for waiting processes: the first one trains the head and exports alone
LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "socket timeout", "remote process", "nccl error", "recvvalue failed")


class PeerLostError(TrainingError):
    """Another process of the training has ended. Its own error is the cause."""


class HalveBatchError(TrainingError):
    """Memory ran out in a phase that all processes train; the phase starts again with half the batch when the training is resumed.

    Attributes:
        phase: name of the phase.
        run: run id of the training, "" if it cannot be resumed.
    """

    def __init__(self, message: str, hint: str, phase: str, run: str = "") -> None:
        super().__init__(message, hint)
        self.phase, self.run = phase, run

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.phase, self.run)


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if _is_joined() else 1


def rank() -> int:
    """Return the rank of this process. The first process, 0, writes all files."""
    return distributed.get_rank() if _is_joined() else 0


def run_in_first(find: Callable[[], T]) -> T:
    """Return what `find` returns in the first of the processes that torchrun has started. For what they must know before they `join`.

    All processes call it. Raises the TlfastError of the first one, or PeerLostError if it has ended.
    """
    if not is_started_by_torchrun() or _is_joined():
        return find()
    from torch.distributed.rendezvous import rendezvous  # missing in torch without torch.distributed

    store, number, _ = next(rendezvous("env://", timeout=TIMEOUT))
    _stores.append(store)
    key = f"tlfast/{next(_numbers)}"
    found: Any = None
    error: TlfastError | None = None
    try:
        if number:
            found, error = pickle.loads(store.get(key))
        else:
            try:
                found = find()
            except TlfastError as raised:
                error = raised
            store.set(key, pickle.dumps((found, error)))
    except distributed.DistError:
        raise PeerLostError(PEER_LOST) from None
    if error:
        raise error
    return cast(T, found)


@contextmanager
def join(settings: Settings) -> Iterator[int]:
    """Within the block, this process is one of those that torchrun started. Yields their number, 1 without torchrun.

    Raises PeerLostError if another process has ended.
    """
    if not is_started_by_torchrun() or _is_joined():
        yield world_size()
        return
    cuda = settings.device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    cores = max(1, count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    limit_cores(cores)
    torch.set_num_threads(cores)  # also with a GPU: batches are gathered and augmentations drawn on the cores
    cache.wait_for_others()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    hidden = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE")}  # fastai's own support of processes reads them; its lr_find then hangs
    try:
        yield world_size()
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLostError(PEER_LOST) from error
    finally:
        os.environ.update(hidden)
        limit_cores(None)  # for the next training of a script
        distributed.destroy_process_group()


def is_lost_peer(error: BaseException) -> bool:
    """Return whether an error says that another process of this training has ended; False in a single process."""
    return world_size() > 1 and (isinstance(error, distributed.DistError) or any(words in str(error).lower() for words in LOST))


def is_orphan() -> bool:
    """Return whether the program that started this process has ended."""
    return world_size() > 1 and os.getppid() != _parent


def require_single(settings: Settings, command: str) -> None:
    """Raise UsageError for `--gpus` in a command that does not support it."""
    if settings.gpus > 1:
        raise UsageError(f"--gpus {settings.gpus}: {command} uses one process", "Leave out --gpus; tlfast train supports it")


def broadcast(value: T) -> T:
    """Return the value of the first process."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def broadcast_last(value: T) -> T:
    """Return the value of the first process as `broadcast` does. That process ignores Ctrl-C and the end of others: all work is done."""
    try:
        return broadcast(value)
    except KeyboardInterrupt:
        return value
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        return value


def receive() -> Any:
    """Return the value that the first process broadcasts."""
    return broadcast(None)


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def any_of(*flags: bool) -> list[bool]:
    """Return for each flag whether it is true in any process."""
    if world_size() == 1:
        return list(flags)
    combined = torch.tensor(flags, dtype=torch.int32)
    distributed.all_reduce(combined, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in combined]


@torch.no_grad()
def mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes."""
    total = x.detach().clone()
    if world_size() > 1:
        distributed.all_reduce(total)
    return total / world_size()


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Copy the values of tensors, such as weights, of the first process to those of all others."""
    if world_size() > 1:
        for value in tensors:
            contiguous = value.contiguous()  # weights in the channels_last format are not
            distributed.broadcast(contiguous, 0)
            value.copy_(contiguous)
