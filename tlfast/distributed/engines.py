"""Engines: `run` calls a function for each item, in any order and on any machine, and yields the results as they arrive."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import urlsplit

from ..core import TlfastError, UsageError, cache
from ..core.errors import first_line, suggest_name
from ..core.system import count_cores, limit_cores

T = TypeVar("T")
Item = TypeVar("Item")
RETRIES = 3  # of a task whose process or node has died
OBJECT_STORE = 100 << 20  # bytes, for a cluster that is started here: results are small
ANSWER = 5.0  # seconds to wait for a connection to a cluster
NO_CLUSTER_HINT = "Start one with: ray start --head, and give the address that it prints"
AHEAD = 2  # tasks in flight for each that can run


class Engine(Protocol):
    """Run independent pieces of work."""

    name: ClassVar[str]
    in_process: ClassVar[bool]  # whether the work runs in this process

    @classmethod
    def open(cls, address: str, cpus: int, gpus: int) -> Engine:
        """Return the engine for a cluster, with the cores and GPUs of each task. Raises UsageError for what it lacks."""
        ...

    def run(self, work: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        """Yield `work(item)` for each item, in any order. `work` and the items must be picklable. Raises TlfastError."""
        ...


@dataclass(frozen=True)
class LocalEngine:
    """One item after another in this process, with all its cores."""

    name: ClassVar[str] = "local"
    in_process: ClassVar[bool] = True

    @classmethod
    def open(cls, address: str, cpus: int, gpus: int) -> LocalEngine:
        for flag, value in (("--address", address), ("--cpus", "" if cpus == 1 else cpus)):
            if value:
                raise UsageError(f"{flag} {value} is given without --engine ray", f"Add --engine ray, or leave out {flag}")
        return cls()

    def run(self, work: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        return map(work, items)


@dataclass(frozen=True)
class RayEngine:
    """Tasks on a Ray cluster: that at `address` or at `RAY_ADDRESS`, else one that is started on this machine for as long as the work lasts.

    Each task uses `cpus` cores and `gpus` GPUs, in the working directory of this process and with its variables TLFAST_*. A task whose process or node dies
    is repeated elsewhere. All nodes need tlfast and the same files at the same paths.
    """

    name: ClassVar[str] = "ray"
    in_process: ClassVar[bool] = False
    address: str = ""
    cpus: int = 1
    gpus: int = 0

    @classmethod
    def open(cls, address: str, cpus: int, gpus: int) -> RayEngine:
        _import_ray()
        return cls(address, cpus, gpus)

    def run(self, work: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
        with _connect(self.address) as ray:
            self._check_nodes(ray.nodes())
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(_run_task)
            place = _Place(self.cpus, self.gpus, os.getcwd(), {name: value for name, value in os.environ.items() if name.startswith("TLFAST_")})
            remaining, pending = iter(items), list[Any]()
            try:
                while True:
                    slots = max(1, int(ray.cluster_resources().get("CPU", 1)) // self.cpus)  # a cluster can grow and shrink
                    pending += [task.remote(place, work, item) for item in islice(remaining, max(0, AHEAD * slots - len(pending)))]
                    if not pending:
                        return
                    (done, *_), pending = ray.wait(pending, num_returns=1)
                    yield _get(ray, done)
            finally:
                for begun in pending:  # after an error, or if the caller stops: the connection may stay open
                    with suppress(Exception):  # of a lost connection, whose error is on its way
                        ray.cancel(begun)

    def _check_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Raise UsageError if no node has the cores and GPUs of a task, which would wait forever."""
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        if not any(has.get("CPU", 0) >= self.cpus and has.get("GPU", 0) >= self.gpus for has in alive):
            found = ", ".join(f"{has.get('CPU', 0):g} cores and {has.get('GPU', 0):g} GPUs" for has in alive)
            raise UsageError(f"--cpus {self.cpus} and {self.gpus} GPUs for each task: the nodes have {found}", "Use fewer --cpus, other nodes, or --device cpu")


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (LocalEngine, RayEngine)}


def open_engine(name: str, address: str = "", cpus: int = 1, devices: Iterable[str] = ()) -> Engine:
    """Return an engine by its name, with `cpus` cores for each task. `devices` are the values of --device in the tasks: for a GPU each one asks for a GPU.

    Raises UsageError for an unknown engine, or if its package is not installed.
    """
    if not isinstance(address, str) or isinstance(cpus, bool) or not isinstance(cpus, int):
        raise UsageError(f"--address {address!r}, --cpus {cpus!r}: not a text and a whole number")
    if not isinstance(name, str) or name not in ENGINES:
        raise UsageError(f"--engine '{name}' is not one of: {', '.join(ENGINES)}", suggest_name(str(name), list(ENGINES)))
    if cpus < 1:
        raise UsageError(f"--cpus {cpus} must be at least 1")
    gpus = 0 if ENGINES[name].in_process else max(map(_count_gpus, devices), default=0)
    return ENGINES[name].open(address, cpus, gpus)


def _count_gpus(device: str) -> int:
    """Return the number of GPUs of a task: "auto" stands for what it is on this machine."""
    if device == "auto":
        import torch

        return int(torch.cuda.is_available())
    return int(device == "cuda")


@dataclass(frozen=True)
class _Place:
    """Where a task runs: its numbers of cores and of GPUs, its working directory, and variables of the environment."""

    cpus: int
    gpus: int
    folder: str
    variables: Mapping[str, str]


def _run_task(place: _Place, work: Callable[[Item], T], item: Item) -> T:
    limit_cores(place.cpus)
    os.chdir(place.folder)
    os.environ.update(place.variables)
    if not place.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray does not hide them, and all tasks would share the first one
    cache.wait_for_others()
    return work(item)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read by the import
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs the package ray", 'Install it: pip install "tlfast[scale]"') from None
    return ray


@contextmanager
def _connect(address: str) -> Iterator[Any]:
    """Yield ray, connected to a cluster. A connection that the caller has opened is used and stays open."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    place: dict[str, Any] = {"address": address} if address else {}
    if not address and not os.environ.get("RAY_ADDRESS"):
        place = {"address": "local", "num_cpus": count_cores(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    _check_answer(address or os.environ.get("RAY_ADDRESS", ""))
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**place, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        if place.get("address") == "local":
            raise TlfastError(f"Ray cannot be started on this machine ({first_line(error)})", "Use --engine local, or the --address of a cluster") from None
        raise TlfastError(f"no Ray cluster answers at {address or 'RAY_ADDRESS'} ({first_line(error)})", NO_CLUSTER_HINT) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)  # ray.init replaces it
    try:
        with redirect_stdout(sys.stderr):  # a thread of Ray prints messages about lost tasks, which are no results
            yield ray
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    """Raise TlfastError if nothing listens at an address `host:port` or `ray://host:port`: Ray itself would try for half a minute."""
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), timeout=ANSWER).close()
    except (OSError, ValueError) as error:
        raise TlfastError(f"no Ray cluster answers at {address} ({first_line(error)})", NO_CLUSTER_HINT) from None


def _get(ray: Any, reference: Any) -> Any:
    """Return the result of a task. Raises the TlfastError of the task, or one that describes how it ended."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, TlfastError):
            raise cause from None
        raise TlfastError(f"a task failed: {type(cause).__name__}: {first_line(cause)}", "Repeat the command to continue") from error
    except ray.exceptions.RayError as error:
        hint = "Repeat the command to continue, with fewer tasks at once if memory is short: --cpus 2"
        raise TlfastError(f"a task was lost {RETRIES + 1} times ({first_line(error)})", hint) from None
