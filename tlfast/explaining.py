"""`tlfast report`: one page on a run, with the images behind its errors and where the network looked, and its model card."""

from __future__ import annotations

import json
from pathlib import Path

from . import reopening, reporting
from .core.errors import DataError, RunError
from .core.events import Event, OnEvent, ignore_event
from .core.runs import COMPARISON, Run
from .outcomes import ReportResult


def report_comparison(folder: Path) -> ReportResult:
    """Write a comparison's page anew, from its `comparison.json`. Raises RunError where that is damaged."""
    try:
        page = reporting.comparison_page(json.loads((folder / COMPARISON).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / COMPARISON} is damaged ({error})", "Compare again: what was trained is found again") from None
    (folder / reporting.FILE).write_text(page, encoding="utf-8")
    return ReportResult(folder.name, [str(folder / reporting.FILE)])


def report(run: Run, split: str = "valid", data: str = "", on_event: OnEvent = ignore_event) -> ReportResult:
    """Write `report.html` and `MODEL_CARD.md` into a run. Where its images are gone, the page has none, and this is said.

    Raises RunError where the run is of a version that kept no predictions, or was not evaluated on this part.
    """
    judged = reporting.read(run, split)
    try:
        evidence = reopening.evidence(reopening.reopen(run, data, on_event), judged.worst, on_event)
    except DataError as error:
        on_event(Event("report", note=f"no pictures of where the network looked: {error.message}"))
        evidence = reporting.Evidence({}, None)
    return ReportResult(run.id, [str(path) for path in reporting.write(run, judged, evidence, on_event)])
