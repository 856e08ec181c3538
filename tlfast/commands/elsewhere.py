"""Work on the images of a task in other processes and on other machines, which must have the same packages and share the cache.

The functions of a task file cannot be imported there by name, so the file is executed again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from ..core import UsageError, cache
from ..core.system import RESULT_PACKAGES, package_versions
from ..data import Task
from ..distributed import Engine
from ..tasks import find_task

T = TypeVar("T")
Item = TypeVar("Item")
ARRIVAL_SECONDS = 60.0  # within which NFS shows new files of other machines (its default of `acdirmax`)


def pack_task(task: Task) -> Task | str:
    """Return what is sent to other processes in place of a task: the path of the file that defines it, or the task itself if there is no file."""
    return task.file or task


def unpack_task(packed: Task | str) -> Task:
    """Return the task of `pack_task` in another process. Raises UsageError if its file is missing or cannot be executed."""
    return find_task(packed)[0] if isinstance(packed, str) else packed


def run_elsewhere(engine: Engine, task: Task, work: Callable[[Task, Item], T], items: Iterable[Item]) -> Generator[tuple[Item, T, str], None, None]:
    """Yield each item with `work(task, item)` and the name of the machine that did it, in any order. Close it to end the work. Raises TlfastError."""
    yield from engine.run(partial(_run_item, pack_task(task), package_versions(), work), items)


def _run_item(packed: Task | str, versions: Mapping[str, str], work: Callable[[Task, Item], T], item: Item) -> tuple[Item, T, str]:
    machine = socket.gethostname()
    _check_versions(versions, machine)
    return item, work(unpack_task(packed), item), machine


def _check_versions(versions: Mapping[str, str], machine: str) -> None:
    """Raise UsageError if this machine has other versions of packages: results of both would be mixed. Builds of one version, as 2.6+cpu, are equal."""
    found = package_versions()
    for name in RESULT_PACKAGES:
        here, wanted = (values.get(name, "none").partition("+")[0] for values in (found, versions))
        if here != wanted:
            raise UsageError(f"{machine} has {name} {here}, and the machine of the command {wanted}", "Install the same versions on all machines")


def check_arrival(find: Callable[[], Any], machine: str) -> None:
    """Wait until `find` finds a result of another machine in the cache of this one. Raises UsageError if it does not come."""
    end = time.monotonic() + ARRIVAL_SECONDS
    while not find():
        if time.monotonic() >= end:
            found = f"the result of {machine} is not in the cache of this machine, {cache.find_root()}"
            raise UsageError(found, f"Name a folder that all machines share in {cache.ENVIRONMENT}; they also need the same images")
        time.sleep(min(1.0, ARRIVAL_SECONDS))
