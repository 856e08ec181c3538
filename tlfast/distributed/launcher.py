"""Start several processes that train one network together, by the agent of torchrun, and wait for them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # that the agent passes to the processes
AGENT = "torch.distributed.elastic"  # its loggers, each with a level of its own
PORT = "localhost:0"  # any free port


def launch(module: str, argument: str, count: int) -> dict[int, int]:
    """Run `python -m module argument` in `count` processes on this machine, as `torchrun --standalone` does, and wait for their end.

    If one fails, the others are ended. Returns the exit codes of those that failed, by rank; those of signals are negative. Raises
    KeyboardInterrupt after a signal to this process; the other processes have 30 seconds to end by themselves.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(AGENT):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # its reports are long; the cause is reported instead
    with tempfile.TemporaryDirectory(prefix="tlfast-") as logs:
        return _run_agent(module, argument, count, logs)


def _run_agent(module: str, argument: str, count: int, logs: str) -> dict[int, int]:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint=PORT,
        max_restarts=0,
        local_addr="localhost",
        logs_specs=DefaultLogsSpecs(log_dir=logs),
    )
    # The processes import what this one does, and no module of the current folder that happens to have the same name.
    paths = {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path), "PYTHONSAFEPATH": "1"}
    with _restored_signals(), _environment(paths):
        try:
            elastic_launch(config, sys.executable)("-m", module, argument)
        except ChildFailedError as error:
            return {rank: failure.exitcode for rank, failure in error.failures.items()}
        except SignalException:
            raise KeyboardInterrupt from None
    return {}


@contextmanager
def _restored_signals() -> Iterator[None]:
    """Restore the handlers of signals, which the agent replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler if handler is not None else signal.SIG_DFL)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
