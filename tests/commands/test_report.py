"""tlfast report: the data check never fails the page, and the page says why it has no findings or no table."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlfast
from tests.helpers.files import tree
from tlfast.commands import check, report
from tlfast.core import RunRecord
from tlfast.core.errors import DataError
from tlfast.core.files import write_csv
from tlfast.data import Finding, Row, scan
from tlfast.data.duplicates import CONFIRMED


def read_page(run, **contents) -> str:
    notes: list[str] = []
    page = Path(report.report_run(run, contents=report.Contents(**contents), on_event=lambda event: notes.append(getattr(event, "note", ""))).files[0])
    return page.read_text() + "\n".join(notes)


def write_findings(run, stamp: str, findings: list[Finding]) -> None:
    folder = run.folder.parent / "checks" / stamp
    folder.mkdir(parents=True)
    write_csv(folder / "findings.csv", findings)


def test_the_check_can_be_left_out(run, monkeypatch):
    monkeypatch.setattr(scan, "scan_images", lambda *_: pytest.fail("the images were checked"))
    text = read_page(run, check=False)
    assert "left out by --no-check" in text and 'id="image-table"' in text


def test_a_failed_check_does_not_fail_the_report(run, monkeypatch):
    def fail(*_):
        raise DataError("a fault of the check")

    monkeypatch.setattr(scan, "scan_images", fail)
    text = read_page(run)
    assert "The data check failed" in text and "no data check: a fault of the check" in text and 'id="image-table"' in text


def test_many_images_are_not_checked_for_a_report(run, monkeypatch):
    monkeypatch.setattr("tlfast.commands.loaded_run.MAX_SCANNED", 10)
    assert "The 36 images were not checked: a report checks at most 10." in read_page(run)


def test_label_findings_are_those_of_the_last_search(run, trained_run):
    images = sorted(str(path) for path in (trained_run.images / "red").iterdir())[:3]
    old = [Finding("label issue", images[0], "red", "train", value=0.1, reason="looks like old")]
    new = [
        Finding("label issue", images[1], "red", "train", value=0.1, reason="looks like <new>"),
        Finding("label issue", images[2], "blue", "train", value=0.1, reason="looks like relabelled since"),
        Finding("near duplicate", images[1], "red", "train", images[2], "red", "train", 0.9, CONFIRMED),
        Finding("near duplicate", images[2], "red", "train", images[1], "red", "train", 1.0),
    ]
    assert "tlfast data check --labels" in read_page(run)
    write_findings(run, "20260101-000000", old)
    write_findings(run, "20260102-000000", new)
    write_findings(run, "20260103-000000", [Finding("dark", images[0], "red", "train", value=1.0)])
    text = read_page(run)
    assert "label issue: 1 image" in text and "looks like &lt;new&gt;" in text
    assert "near duplicate: 1 image" in text and CONFIRMED in text
    assert "looks like old" not in text and "relabelled since" not in text and "tlfast data check --labels" not in text


@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"", b"kind,path\nlabel issue,a.png\n", b"path\na.png\n"])
def test_damaged_findings_of_a_search_are_passed_over(tmp_path, damaged):
    for day, content in ((1, b"kind,path,label,split,value,reason\noutlier,a.png,red,valid,0.5,odd\n"), (2, damaged)):
        (tmp_path / f"checks/2026010{day}-000000").mkdir(parents=True)
        (tmp_path / f"checks/2026010{day}-000000/findings.csv").write_bytes(content)
    found = check.read_label_findings(tmp_path, [Row("a.png", "red", "valid")])
    assert found == [Finding("outlier", "a.png", "red", "valid", value=0.5, reason="odd")]


def test_a_run_without_its_list_of_images_has_a_table(run):
    (run.folder / "images.csv").unlink()
    assert 'id="image-table"' in read_page(run, check=False)


def test_interpret_and_python_write_the_same_sections(run, cli, pictures):
    before = tree(pictures)
    assert cli("interpret", "r", "--json").code == 0
    page = run.folder / "report.html"
    assert 'id="check"' in page.read_text() and 'id="image-table"' in page.read_text()
    assert "--no-check" in tlfast.Run("r").report(check=False, quiet=True).path.read_text()
    assert cli("report", "r", "--no-check", "--no-paths", "--json").code == 0
    assert "--no-check" in page.read_text() and 'id="image-table"' not in page.read_text()
    assert tree(pictures) == before


def test_pages_without_paths_are_recognized_by_split(tmp_path):
    run = RunRecord(tmp_path, {})
    (tmp_path / "report_test.html").write_text(f"<p>{report.UNLISTED}</p>")
    (tmp_path / "report.html").write_text("<table>")
    assert [report.is_without_paths(run, split) for split in ("valid", "test", "all")] == [False, True, False]


def test_interpret_keeps_a_page_without_paths(cli, run, trained_run):
    assert cli("report", "r", "--no-paths").code == 0
    outcome = cli("interpret", "r")
    page = (run.folder / "report.html").read_text()
    assert outcome.code == 0 and "without local paths, as it was; with them: tlfast report r" in " ".join(outcome.err.split())
    assert str(trained_run.images) not in page and "Made with --no-paths" in page
    assert cli("report", "r").code == cli("interpret", "r").code == 0
    assert str(trained_run.images) in (run.folder / "report.html").read_text()
