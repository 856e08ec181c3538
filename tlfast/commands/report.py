"""`tlfast report`: an HTML page on a run with its model card, or a page on a comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core import DataError, Note, OnEvent, Run, RunError, ignore_event
from ..core.files import write_text_atomic
from ..core.runs import COMPARISON, hide_paths
from ..evaluation.report import REPORT_FILE, Evidence, read_evaluation, render_comparison_page, write_report
from . import loaded_run


@dataclass(frozen=True)
class ReportResult:
    """Result of `tlfast report`.

    Attributes:
        run: id of the run, or name of the comparison's folder.
        files: files written, the page first.
    """

    run: str
    files: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Contents:
    """What a report has.

    Attributes:
        paths: local paths, and the table of images to download with changes; otherwise the names of files, and no table.
        check: findings of the data check.
    """

    paths: bool = True
    check: bool = True


EVERYTHING = Contents()


def report_run(
    run: Run, split: str = "valid", data: str = "", device: str = "auto", contents: Contents = EVERYTHING, on_event: OnEvent = ignore_event
) -> ReportResult:
    """Write `report.html` and `MODEL_CARD.md` into a run. If its images are missing, the page has no images, and a note is sent.

    `data` names the images if they have moved. Raises RunError if the run has no predictions for the split.
    """
    stored = read_evaluation(run, split)
    try:
        evidence = loaded_run.collect_evidence(loaded_run.load_run(run, data, device, on_event), stored.top_losses, on_event, contents.check)
    except DataError as error:
        on_event(Note("report", f"no activation maps: {error.message}"))
        evidence = Evidence({}, None, "The images were not checked, and none can be dropped or relabelled here: they cannot be read as the run had them.")
    if not contents.paths:
        evidence = replace(evidence, rows=(), unlisted="Made with --no-paths: the page has no table of the images, and none can be dropped or relabelled.")
    shown = run if contents.paths else replace(run, manifest=hide_paths(run.manifest))
    return ReportResult(run.id, [str(path) for path in write_report(shown, stored, evidence, on_event)])


def report_comparison(folder: Path) -> ReportResult:
    """Write the page of a comparison again, from its `comparison.json`. Raises RunError if that file is damaged."""
    try:
        page = render_comparison_page(json.loads((folder / COMPARISON).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / COMPARISON} is damaged ({error})", "Repeat the comparison; its trainings are cached") from None
    write_text_atomic(folder / REPORT_FILE, page)
    return ReportResult(folder.name, [str(folder / REPORT_FILE)])
