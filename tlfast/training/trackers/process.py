"""The process of a tracker, as seen from the training: a bounded queue, a thread that empties it, and a limited time to end."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from .base import Tracker

QUEUED = 1000  # messages that wait for a tracker at most; further ones are dropped


class TrackerProcess:
    """A tracker in a process of its own. No method waits for it, except `wait`.

    `failure` says why the tracker ended early, "" as long as it has not. `dropped` counts the messages that did not fit into the queue.
    """

    def __init__(self, tracker: type[Tracker]) -> None:
        self.name, self.failure, self.dropped = tracker.name, "", 0
        self.messages: queue.Queue[str] = queue.Queue()
        self.process = _start(tracker)
        self.thread = threading.Thread(target=self._write, name=f"tlfast-{tracker.name}", daemon=True)
        self.thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message. Figures are dropped if QUEUED messages wait, all messages if the tracker has ended."""
        if not self.thread.is_alive():
            return
        if message["do"] == "log" and self.messages.qsize() >= QUEUED:
            self.dropped += 1
        else:
            self.messages.put(json.dumps(message))

    def finish(self) -> None:
        """Let the process end after the queued messages."""
        self.messages.put("")

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process, after `finish`. Returns whether it has ended."""
        self.thread.join(max(0.0, seconds))
        return not self.thread.is_alive()

    def stop(self) -> None:
        """Kill the process if it has not ended."""
        if self.thread.is_alive():
            self.failure = "it did not finish in time and was stopped"
            self._kill()
            self.thread.join(1.0)

    def _kill(self) -> None:
        """Kill the process and those that it has started, which are of its group."""
        with contextlib.suppress(OSError):  # they have ended
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def _write(self) -> None:
        """Write the queued messages to the process, then wait for its end and read why it failed."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin
        assert stdout
        with contextlib.suppress(OSError):  # the process has ended
            while message := self.messages.get():
                stdin.write(message + "\n")
                stdin.flush()
        with contextlib.suppress(OSError):
            stdin.close()
        reason = stdout.read().strip()
        self._wait_for_exit()
        code = self.process.wait()
        self.failure = self.failure or reason or (f"its process ended with exit code {code}" if code else "")
        stdout.close()

    def _wait_for_exit(self) -> None:
        """Wait until the process has ended, then kill what it has left running, before its id is free for others."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(OSError):
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
            self._kill()


def _start(tracker: type[Tracker]) -> subprocess.Popen[str]:
    """Start the process of a tracker. Signals of the terminal do not reach it: it ends with its input."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.worker", f"{tracker.__module__}:{tracker.__qualname__}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},  # no other modules of the current folder
        start_new_session=True,
    )
