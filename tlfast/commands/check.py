"""TODO: docstring."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import files, runs
from ..core.errors import DataError, UsageError
from ..core.events import OnEvent, ignore_event
from ..core.settings import Settings
from ..data import scan
from ..data.sources import locate
from ..data.table import ImageTable, load_table
from ..data.task import Task
from ..data.types import DataSummary, Finding, Row, Unreadable
from ..evaluation.report import REPORT_FILE, render_check_page


@dataclass(frozen=True)
class DataReport:
    """What a data set is, and what is wrong with it: how many images by kind of finding, the findings, and the files that hold and show them.

    `table` is a CSV of the images that were left when those of some kinds were dropped, `dropped` how many went for which.
    """

    summary: DataSummary
    counts: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    findings_file: str = ""
    page: str = ""
    table: str = ""
    dropped: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single findings, which may be very many and are in their file."""
        files = {"findings_file": self.findings_file, "page": self.page, "table": self.table}
        return {**self.summary.to_dict(), "findings": self.counts, **files, "dropped": self.dropped}


FOLDER = "checks"
DROPPABLE = {"duplicates": ("duplicate",), "conflicts": ("conflict", "near conflict"), "unreadable": ("unreadable",), "leaks": ("leak", "near leak")}

Search = Callable[[Task, Settings, Sequence[Row], OnEvent], list[Finding]]


def check_data(task: Task, settings: Settings, drop: Sequence[str] = (), on_event: OnEvent = ignore_event, also: Search | None = None) -> DataReport:
    """Look at every image; name what is wrong, and keep the list; with `drop` also write a table without such images, to train on.

    `also` looks for more, in the images that can be read. Nothing of the data is changed. Raises UsageError, or DataError for unusable data.
    """
    for kind in drop:
        if kind not in DROPPABLE:
            raise UsageError(f"--drop '{kind}' is not one of: {', '.join(DROPPABLE)}")
    runs.check_writable(settings.out, settings.task, "")
    table = load_table(task, settings, locate(task, settings.data))
    looks = scan.scan_images([row.path for row in table.rows], on_event)
    findings = scan.collect_findings(table.rows, looks)
    if also:
        findings += also(task, settings, [row for row in table.rows if row.path not in looks.unreadable], on_event)
    bad = [Unreadable(path, reason) for path, reason in looks.unreadable.items()]
    summary = replace(table.summary(), unreadable=bad, modes=looks.modes, sizes=looks.sizes)
    counts = dict(Counter(kind for kind, _ in dict.fromkeys((each.kind, each.path) for each in findings)))
    if not findings and not drop:
        return DataReport(summary, counts)
    return _write_findings(DataReport(summary, counts, findings), table, drop, settings)


# Files


def _write_findings(report: DataReport, table: ImageTable, drop: Sequence[str], settings: Settings) -> DataReport:
    """Write the findings, and the table that is left to train on where something is to be dropped."""
    with runs.create_run(settings.out, f"{settings.task}/{FOLDER}", time.strftime("%Y%m%d-%H%M%S"), latest=False) as (folder, published):
        if report.findings:
            files.write_csv(folder / "findings.csv", report.findings)
            page = render_check_page(f"{settings.task}: what is wrong with {len(table.rows):,} images", table.source, report.findings)
            (folder / REPORT_FILE).write_text(page, encoding="utf-8")
        if drop:
            kept, dropped = drop_findings(table.rows, report.findings, drop)
            if not kept:
                raise DataError("nothing would be left to train on", "Drop less")
            files.write_csv(folder / "images.csv", [replace(row, path=os.path.abspath(row.path)) for row in kept])
            report = replace(report, dropped=dropped)
    findings_file, page, table_file = (_find_folder(published[0] / name) for name in ("findings.csv", REPORT_FILE, "images.csv"))
    return replace(report, findings_file=findings_file, page=page, table=table_file)


def _find_folder(path: Path) -> str:
    return str(path) if path.is_file() else ""


def drop_findings(rows: Sequence[Row], findings: Sequence[Finding], drop: Sequence[str]) -> tuple[list[Row], dict[str, int]]:
    """Return the rows without what is to be dropped, and how many images went for each kind.

    Of a leak the training image goes, wherever it was copied to, so that what judges stays as it was; of copies the first stays.
    """
    kinds = {kind: name for name in drop for kind in DROPPABLE[name]}
    gone: dict[str, str] = {}
    for each in findings:
        if each.kind in kinds:
            gone.setdefault(each.other if "leak" in each.kind else each.path, kinds[each.kind])
    if "leaks" in drop:
        _spread_examples(gone, findings)
    dropped: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.path in gone:
            dropped[gone[row.path]] += 1
    return [row for row in rows if row.path not in gone], dict(dropped)


def _spread_examples(gone: dict[str, str], findings: Sequence[Finding]) -> None:
    """Where a training image goes because it leaks, its copies within the training part go too."""
    for each in findings:
        if each.kind == "duplicate" and each.split == "train" and gone.get(each.other) == "leaks":
            gone[each.path] = "leaks"
