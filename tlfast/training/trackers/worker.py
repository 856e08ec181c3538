"""The process of a tracker: it reads messages, one line of JSON each, and calls the tracker. Its last line of output says why it failed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ...core.errors import first_line
from .base import SYSTEM, RunInfo, Tracker

NICENESS = 10  # the training has priority over the tracker


def main() -> None:
    """Run the tracker that the command line names as `module:class` until the end of the input."""
    lines, answer = _take_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # Windows has no priorities of this kind
        os.nice(NICENESS)
    try:
        module, _, name = sys.argv[1].partition(":")
        run_tracker(getattr(import_module(module), name), lines)
    except BaseException as error:  # of any package; also SystemExit
        answer.write(first_line(error) if isinstance(error, Exception) else repr(error))
        answer.flush()
        os._exit(1)  # not waiting for threads of the tracker, which may hang


def _take_streams() -> tuple[Any, Any]:
    """Return the messages and a stream for the answer. What the tracker reads or prints goes to the null device."""
    lines, answer = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    return lines, answer


def run_tracker(kind: type[Tracker], lines: Iterable[str]) -> None:
    """Call the methods of a tracker for messages, such as `{"do": "log", "values": {"step/loss": 0.5}, "step": 50}`.

    A run without its end, because the training was killed, ends as failed.
    """
    tracker: Tracker | None = None
    for line in lines:
        message = json.loads(line)
        action = message.pop("do")
        if action == "start":
            tracker = kind()
            tracker.start(message["run_id"], RunInfo(**message["config"]))
        elif tracker and action == "log":
            values = {name: value for name, value in message["values"].items() if not (kind.logs_load and name.startswith(SYSTEM))}
            if values:
                tracker.log(values, message["step"])
        elif tracker and action == "file":
            tracker.file(Path(message["path"]))
        elif tracker and action == "end":
            tracker.end(message["status"])
            tracker = None
    if tracker:
        tracker.end("failed")


if __name__ == "__main__":
    main()
