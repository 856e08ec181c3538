"""`tlfast data check`: problems of a data set, and a table of images without them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import DataError, OnEvent, Settings, UsageError, files, ignore_event, runs
from ..core.run_files import REPORT_FILE
from ..core.setting_checks import CHECKS
from ..data import DataSummary, Finding, ImageTable, Row, Task, scan
from ..data.duplicates import CONFIRMED
from ..data.records import read_records
from ..data.scan import ScanResult
from ..data.sources import open_data
from ..data.split import drop_spare
from ..data.types import RANKED, Unreadable
from ..evaluation.report import render_check_page

FINDINGS_FILE, TABLE_FILE = "findings.csv", "images.csv"
DROPPABLE = {"duplicates": ("duplicate",), "conflicts": ("conflict", "near conflict"), "unreadable": ("unreadable",), "leaks": ("leak", "near leak")}


@dataclass(frozen=True)
class WrongLabels:
    """Estimated number of wrong labels among `images` labels, with its bootstrap interval of 95 %."""

    estimate: int
    low: int
    high: int
    images: int


Search = Callable[[Task, Settings, Sequence[Row], ScanResult, OnEvent], tuple[list[Finding], WrongLabels]]
Read = Callable[[Task, Settings, OnEvent], ImageTable]


@dataclass(frozen=True)
class DataReport:
    """Result of `tlfast data check`.

    Attributes:
        summary: numbers of images, their sizes and modes, and unreadable images.
        counts: kind of finding -> number of images.
        findings: the findings; an image can have several.
        findings_file: CSV file of the findings, "" if there are none.
        page: HTML page of the findings, "" if there are none.
        table: CSV file of the images that remain after dropping, "" without `drop`.
        dropped: value of `drop` -> number of images dropped.
        wrong_labels: estimated number of wrong labels; None without a search for them.
    """

    summary: DataSummary
    counts: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    findings_file: str = ""
    page: str = ""
    table: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    wrong_labels: WrongLabels | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all values but the single findings as JSON types; the findings are in their file."""
        paths = {"findings_file": self.findings_file, "page": self.page, "table": self.table}
        estimate = {"wrong_labels": asdict(self.wrong_labels)} if self.wrong_labels else {}
        return {**self.summary.to_dict(), "findings": self.counts, **paths, "dropped": self.dropped, **estimate}


def check_data(
    task: Task, settings: Settings, drop: Sequence[str] = (), on_event: OnEvent = ignore_event, search: Search | None = None, read: Read = open_data
) -> DataReport:
    """Check every image and write the findings; with `drop`, also a table without images of these kinds, to train on.

    `drop` holds keys of `DROPPABLE`. `search` returns further findings, and an estimate. `read` returns the table of images. The data is not
    changed. Raises UsageError, or DataError if the data cannot be used.
    """
    for name in drop:
        if name not in DROPPABLE:
            raise UsageError(f"--drop '{name}' is not one of: {', '.join(DROPPABLE)}")
    runs.check_writable(settings.out, settings.task, "")
    table = read(task, settings, on_event)
    table = replace(table, rows=tuple(drop_spare(table.rows)))
    scanned = scan.scan_images([row.path for row in table.rows], on_event)
    findings, wrong_labels = scan.collect_findings(table.rows, scanned, on_event), None
    if search:
        found, wrong_labels = search(task, settings, table.rows, scanned, on_event)
        known = {(finding.kind, finding.path) for finding in findings}  # a near leak can have several findings, other kinds one for each image
        findings += [finding for finding in found if finding.kind == "near leak" or (finding.kind, finding.path) not in known]
    unreadable = [Unreadable(path, reason) for path, reason in scanned.unreadable.items()]
    summary = replace(table.summary(), unreadable=unreadable, modes=scanned.modes, sizes=scanned.sizes)
    report = DataReport(summary, _count_images(findings), findings, wrong_labels=wrong_labels)
    return _write_files(report, table, drop, settings) if findings or drop else report


def check_cutoff(cutoff: Any, labels: bool) -> None:
    """Raise UsageError for a cut-off that is not a probability, or that is given without a search for wrong labels."""
    if isinstance(cutoff, bool) or not isinstance(cutoff, (int, float)) or not 0 <= cutoff <= 1:
        raise UsageError(f"--label-cutoff {cutoff} is not a probability", "Give a number from 0 to 1")
    if cutoff != 1 and not labels:
        raise UsageError("--label-cutoff is given without --labels", "Add --labels, or leave it out")


def _count_images(findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of images for each kind of finding."""
    images = dict.fromkeys((finding.kind, finding.path) for finding in findings)
    return dict(Counter(kind for kind, _ in images))


# Files


def _write_files(report: DataReport, table: ImageTable, drop: Sequence[str], settings: Settings) -> DataReport:
    """Write the findings, their page and the table of remaining images. Raises DataError if no image remains."""
    with runs.create_run(settings.out, f"{settings.task}/{CHECKS}", time.strftime("%Y%m%d-%H%M%S"), latest=False) as (folder, published):
        if report.findings:
            files.write_csv(folder / FINDINGS_FILE, report.findings)
            page = render_check_page(f"{settings.task}: what is wrong with {len(table.rows):,} images", table.source, report.findings)
            (folder / REPORT_FILE).write_text(page, encoding="utf-8")
        if drop:
            remaining, dropped = drop_findings(table.rows, report.findings, drop)
            if not remaining:
                raise DataError(f"no image remains without {', '.join(drop)}", "Drop fewer kinds")
            files.write_csv(folder / TABLE_FILE, [replace(row, path=os.path.abspath(row.path)) for row in remaining])
            report = replace(report, dropped=dropped)
    findings_file, page, table_file = (_path_if_written(published[0] / name) for name in (FINDINGS_FILE, REPORT_FILE, TABLE_FILE))
    return replace(report, findings_file=findings_file, page=page, table=table_file)


def _path_if_written(path: Path) -> str:
    return str(path) if path.is_file() else ""


def read_label_findings(task_folder: Path, rows: Sequence[Row]) -> list[Finding]:
    """Return what the last `data check --labels` of a task has found by a network, for the images in `rows` with the same label.

    A damaged list is passed over.
    """
    known = {(row.path, row.label) for row in rows} | {("", "")}  # "": no related image
    for file in sorted(task_folder.glob(f"{CHECKS}/*/{FINDINGS_FILE}"), reverse=True):
        with suppress(DataError, KeyError, TypeError, ValueError):
            found = [_to_finding(record) for record in read_records(file)[1] if _is_by_network(record)]
            if found:
                return [each for each in found if {(each.path, each.label), (each.other, each.other_label)} <= known]
    return []


def _to_finding(record: Mapping[str, str]) -> Finding:
    return Finding(**{**record, "value": float(record["value"])})  # type: ignore[arg-type]  # the columns are the fields


def _is_by_network(record: Mapping[str, str]) -> bool:
    return record["kind"] in RANKED or record["reason"] == CONFIRMED


# Dropping


def drop_findings(rows: Sequence[Row], findings: Sequence[Finding], drop: Sequence[str]) -> tuple[list[Row], dict[str, int]]:
    """Return the rows without images of the kinds in `drop`, and the number of images dropped for each.

    For leaks, the image in the earlier split is dropped, with its copies there. So the test split stays the same, and a valid image is dropped only for a
    copy in the test split. Of duplicates, the first image stays.
    """
    kinds = {kind: name for name in drop for kind in DROPPABLE[name]}
    reasons: dict[str, str] = {}  # path -> value of `drop`
    for finding in findings:
        if finding.kind in kinds:
            reasons.setdefault(finding.other if "leak" in finding.kind else finding.path, kinds[finding.kind])
    if "leaks" in drop:
        _add_leaked_copies(reasons, findings)
    counts = Counter(reasons[row.path] for row in rows if row.path in reasons)
    return [row for row in rows if row.path not in reasons], dict(counts)


def _add_leaked_copies(reasons: dict[str, str], findings: Sequence[Finding]) -> None:
    """Also drop copies of dropped images within the train and the valid split, and valid images with a training copy that a test image has too."""
    tested = {finding.other for finding in findings if finding.kind == "leak" and finding.split == "test"}
    for finding in findings:
        if finding.kind == "leak" and finding.split == "valid" and finding.other in tested:
            reasons.setdefault(finding.path, "leaks")
    for finding in findings:
        if finding.kind == "duplicate" and finding.split in ("train", "valid") and reasons.get(finding.other) == "leaks":
            reasons[finding.path] = "leaks"
