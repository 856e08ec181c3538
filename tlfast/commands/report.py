"""`tlfast report`: an HTML page on a run with its model card, or a page on a comparison."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core import DataError, Note, OnEvent, RunError, RunRecord, ignore_event
from ..core.files import write_text_atomic
from ..core.local_paths import hide_paths
from ..core.run_files import REPORT_FILE, name_split_file
from ..core.runs import COMPARISON
from ..evaluation.report import Evidence, StoredEvaluation, read_evaluation, render_comparison_page, write_report
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
UNLISTED = "Made with --no-paths: the page has no table of the images, and none can be dropped or relabelled."


def report_run(
    run: RunRecord, split: str = "valid", data: str = "", device: str = "auto", contents: Contents = EVERYTHING, on_event: OnEvent = ignore_event
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
    return ReportResult(run.id, [str(path) for path in write_page(run, stored, evidence, contents.paths, on_event)])


def write_page(run: RunRecord, stored: StoredEvaluation, evidence: Evidence, paths: bool, on_event: OnEvent) -> list[Path]:
    """Write the page and the model card of a run, with local paths or without. Returns their paths."""
    if not paths:
        run, evidence = replace(run, manifest=hide_paths(run.manifest)), replace(evidence, rows=(), unlisted=UNLISTED)
    return write_report(run, stored, evidence, on_event)


def is_without_paths(run: RunRecord, split: str) -> bool:
    """Return whether a run has a page for the split that was made with `--no-paths`."""
    page = run.folder / name_split_file(REPORT_FILE, split)
    return page.is_file() and UNLISTED in page.read_text(encoding="utf-8", errors="replace")


def report_comparison(folder: Path, paths: bool = True) -> ReportResult:
    """Write the page of a comparison again, from its `comparison.json`. Raises RunError if that file is damaged."""
    try:
        content = json.loads((folder / COMPARISON).read_text(encoding="utf-8"))
        if not paths:
            named = {f"{i} {name}": value for i, arm in enumerate(content["arms"]) for name, value in arm["settings"].items()}
            content = hide_paths({"settings": named, "data": {"source": content["source"]}, "comparison": content})["comparison"]
        page = render_comparison_page(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / COMPARISON} is damaged ({error})", "Repeat the comparison; its trainings are cached") from None
    write_text_atomic(folder / REPORT_FILE, page)
    return ReportResult(folder.name, [str(folder / REPORT_FILE)])
