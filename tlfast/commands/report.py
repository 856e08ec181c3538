"""`tlfast report`: one page on a run, with the images behind its errors and where the network looked, and its model card."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DataError, RunError
from ..core.events import Note, OnEvent, ignore_event
from ..core.runs import COMPARISON, Run
from ..evaluation.report import REPORT_FILE, Evidence, read_evaluation, render_comparison_page, write_report
from . import loaded_run


def report_comparison(folder: Path) -> ReportResult:
    """Write a comparison's page anew, from its `comparison.json`. Raises RunError where that is damaged."""
    try:
        page = render_comparison_page(json.loads((folder / COMPARISON).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / COMPARISON} is damaged ({error})", "Compare again: what was trained is found again") from None
    (folder / REPORT_FILE).write_text(page, encoding="utf-8")
    return ReportResult(folder.name, [str(folder / REPORT_FILE)])


def report_run(run: Run, split: str = "valid", data: str = "", on_event: OnEvent = ignore_event) -> ReportResult:
    """Write `report.html` and `MODEL_CARD.md` into a run. Where its images are gone, the page has none, and this is said.

    Raises RunError where the run is of a version that kept no predictions, or was not evaluated on this part.
    """
    stored = read_evaluation(run, split)
    try:
        evidence = loaded_run.collect_evidence(loaded_run.load_run(run, data, on_event), stored.top_losses, on_event)
    except DataError as error:
        on_event(Note("report", f"no pictures of where the network looked: {error.message}"))
        evidence = Evidence({}, None)
    return ReportResult(run.id, [str(path) for path in write_report(run, stored, evidence, on_event)])


@dataclass(frozen=True)
class ReportResult:
    """The page and the model card that `tlfast report` wrote."""

    run: str
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
