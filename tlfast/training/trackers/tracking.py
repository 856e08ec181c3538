"""Tracked runs: events of a training as messages for the trackers, with final figures and files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ...core import Event, Interrupted, Journal, Note, OnEvent
from ...core.errors import first_line
from ...core.metrics import FIGURE_TITLES
from ...evaluation import Evaluation
from ..types import EpochEnd, StepEnd
from .base import RunInfo, Status, Tracker
from .load import Load
from .process import TrackerProcess
from .registry import parse_names

END_SECONDS = 30.0  # that trackers have together to finish at the end of a command, also after Ctrl-C
SAID_AFTER = 2.0  # seconds until a note says that they are waited for
STEPS = "steps of "  # key of a phase in the journal: the steps before it, and its own


class Tracking:
    """The trackers of a command. Without trackers every method does nothing, except `on_event`, which passes events on.

    A run goes from `start` to `end`; a comparison has several, one after the other.
    """

    def __init__(self, trackers: Sequence[type[Tracker]], on_event: OnEvent) -> None:
        self.listener = on_event
        self.processes: list[TrackerProcess] = []
        self.named: set[str] = set()  # trackers whose failure was said
        for tracker in trackers:
            try:
                self.processes.append(TrackerProcess(tracker))
            except OSError as error:  # such as too little memory for another process
                self._report_failure(tracker.name, first_line(error))
        self.load = Load()
        self.started = self.running = False

    def __bool__(self) -> bool:
        return bool(self.processes)

    @property
    def names(self) -> list[str]:
        """Names of the trackers."""
        return [process.name for process in self.processes]

    def start(self, run_id: str, config: RunInfo, journal: Journal, earlier: Collection[str] = ()) -> None:
        """Begin a tracked run, or continue it in the trackers that had it `earlier`. The journal keeps how many steps the phases had, for `--resume`.

        Bytes of paths and class names that are not UTF-8 become question marks in its values.
        """
        self.journal = journal
        self.started = self.running = True
        self.phase, self.offset, self.step = "", 0, 0
        values = json.loads(json.dumps(config.values, ensure_ascii=False).encode(errors="replace"))
        for process in self.processes:
            described = replace(config, values=values, resumed=process.name in earlier)
            process.send({"do": "start", "run_id": run_id, "config": asdict(described)})

    def on_event(self, event: Event) -> None:
        """Pass an event on, and log what it holds for the trackers."""
        self.listener(event)
        if self.running and isinstance(event, EpochEnd) and event.last:
            self._log_step(event.last, _describe_epoch(event))
        elif self.running and isinstance(event, StepEnd):
            self._log_step(event, _describe_step(event))
        self._report_failures()

    def log_figures(self, values: Mapping[str, float | None]) -> None:
        """Log final figures, such as `{"accuracy": 0.9}`."""
        if self.running:
            self._send({"do": "log", "values": {f"final/{name}": value for name, value in values.items() if value is not None}, "step": self._last_step()})

    def log_evaluation(self, evaluation: Evaluation) -> None:
        """Log all figures of an evaluation, with the ends of their 95 % intervals."""
        figures: dict[str, float | None] = {name: evaluation.figure(name) for name in FIGURE_TITLES}
        for name, interval in evaluation.intervals.items():
            figures |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
        calibration = {"calibration_error": evaluation.calibration.error, "temperature": evaluation.calibration.temperature}
        self.log_figures({**figures, **calibration, "images": evaluation.macro.support})

    def add_files(self, paths: Sequence[Path]) -> None:
        """Add those of the files that exist to the run."""
        for path in paths:
            if path.is_file():
                self._send({"do": "file", "path": str(path.absolute())})

    def end(self, status: Status) -> None:
        """End the tracked run, if one has begun."""
        if self.running:
            self._send({"do": "end", "status": status})
        self.running = False

    def close(self) -> None:
        """Let all trackers finish within END_SECONDS, together; then stop them, and name those that failed. Ctrl-C ends the wait: the run is complete."""
        end = time.monotonic() + (END_SECONDS if self.started else 0.0)
        for process in self.processes:
            process.finish()
        try:
            slow = self._wait(min(end, time.monotonic() + SAID_AFTER))
            if slow and self.started:
                self.listener(Note("trackers", f"waiting up to {END_SECONDS:.0f} s for {', '.join(slow)}; Ctrl-C ends the wait"))
            self._wait(end)
        except KeyboardInterrupt:
            pass
        for process in self.processes:
            process.stop()
        if self.started:
            self._report_failures()
            self._report_dropped()

    def _wait(self, end: float) -> list[str]:
        """Wait for all processes until a time of the monotonic clock. Returns the names of those that have not ended."""
        return [process.name for process in self.processes if not process.wait(end - time.monotonic())]

    def _report_dropped(self) -> None:
        for process in self.processes:
            if process.dropped and not process.failure:
                self.listener(Note(process.name, f"the tracker was too slow: {process.dropped:,} of its messages were left out"))

    def _send(self, message: Mapping[str, Any]) -> None:
        for process in self.processes:
            process.send(message)

    def _report_failures(self) -> None:
        for process in self.processes:
            if process.failure and process.name not in self.named:
                self._report_failure(process.name, process.failure)

    def _report_failure(self, name: str, reason: str) -> None:
        self.named.add(name)
        self.listener(Note(name, f"the tracker failed: {reason}; the run is not affected"))

    # Steps of the whole training

    def _log_step(self, event: StepEnd, values: Mapping[str, float]) -> None:
        if event.phase != self.phase:
            self.phase, self.offset = event.phase, self._count_before(event)
        elif self.offset + event.step < self.step:  # the phase started again with half the batch
            self.offset = self.step
        self.step = self.offset + event.step
        self._send({"do": "log", "values": {**values, **self.load.measure()}, "step": self.step})

    def _count_before(self, event: StepEnd) -> int:
        """Return the number of steps in the phases before, also of those that finished before an interruption."""
        before = max(self.step, self._last_step())
        return int(self.journal.once(f"{STEPS}{event.phase}", lambda: [before, event.total])[0])

    def _last_step(self) -> int:
        """Return the last step that was logged, or the planned end of the phases in the journal."""
        planned = [sum(steps) for name, steps in self.journal.facts.others.items() if name.startswith(STEPS)]
        return self.step or max(planned, default=0)


def _describe_step(event: StepEnd) -> dict[str, float]:
    return {f"step/{name}": getattr(event, name) for name in ("loss", "rate", "lowest_rate", "images_per_second")}


def _describe_epoch(event: EpochEnd) -> dict[str, float]:
    """Return the columns of `history.csv` but the phase, with the rates and the speed."""
    assert event.last
    row = {name: value for name, value in vars(event.row).items() if isinstance(value, int | float) and not math.isnan(value)}
    last = {name: getattr(event.last, name) for name in ("rate", "lowest_rate", "images_per_second")}
    return {f"epoch/{name}": value for name, value in {**row, **last}.items()}


@contextmanager
def open_tracking(names: str, on_event: OnEvent) -> Iterator[Tracking]:
    """Start the trackers of `--log`; end their run and let them finish with the block. Raises UsageError for unknown or missing trackers."""
    tracking = Tracking(parse_names(names), on_event)
    status: Status = "failed"
    try:
        yield tracking
        status = "finished"
    except (KeyboardInterrupt, Interrupted):
        status = "interrupted"
        raise
    finally:
        tracking.end(status)
        tracking.close()
