"""The report: everything in one file, text stays text, small whatever the data; in a browser it works for everyone. And where a network looks."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from tests.helpers.browser import SIZES, accessibility_faults, needs_browser, opened_page
from tests.helpers.command_line import TINY
from tlfast.core import errors, runs
from tlfast.core.run_files import PREDICTIONS_FILE
from tlfast.data import images
from tlfast.data.types import FINDING_KINDS, Finding
from tlfast.evaluation import evaluate
from tlfast.evaluation import report as report_pages
from tlfast.evaluation.types import Predictions
from tlfast.testing import COLOURS, draw_image

NASTY = "<b>bad & '*worse*'"


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run whose classes and files are called what a page must not run, half of its labels wrong; and what `report` printed."""
    from typer.testing import CliRunner

    from tlfast.cli.app import app

    root = tmp_path_factory.mktemp("reported")
    for n, label in enumerate([NASTY, "green", "red"] * 20):
        shown = list(COLOURS)[(n + (n % 4 == 0)) % 3]
        draw_image(root / "images" / label / f"<img src=x onerror=alert(1)>{n}.png", COLOURS[shown], n)
    shutil.copy(root / "images" / "red" / "<img src=x onerror=alert(1)>2.png", root / "images" / "red" / "copy.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLFAST_CACHE", str(root / "cache"))
        patch.chdir(root)
        trained = CliRunner().invoke(
            app, ["train", str(root / "images"), *map(str, TINY), "--epochs", "2", "--label-smoothing", "0.1", "--keep", "best", "--quiet"]
        )
        assert trained.exit_code == 0, trained.stderr
        done = CliRunner().invoke(app, ["report", "images", "--json"])
        assert done.exit_code == 0, done.stderr
        yield runs.find("images", str(root / "exports")), [root / file for file in json.loads(done.stdout)["files"]]


def test_everything_is_in_the_file(reported):
    run, (page, card) = reported
    text = page.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) and "@import" not in text and "url(" not in text
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert f"{metrics['accuracy']:.4f}" in text and f"95 %: {metrics['intervals']['accuracy'][0]:.3f}" in text
    assert "tlfast train" in text and "--label-smoothing 0.1" in text
    assert re.search("(duplicate|leak): 1 image", text) and "copy.png" in text  # in one part, or in two
    assert text.count("data:image/jpeg") > 10 and 'alt="activation map"' in text
    assert f"accuracy\n      value: {metrics['accuracy']:.4f}" in card.read_text().replace("type: ", "")
    runs.verify(run)  # what was added is no part of the export, and has not changed it


def test_names_stay_text(reported):
    text = reported[1][0].read_text()
    assert "These images also chose the epoch" in text
    assert "<img src=x" not in text and NASTY not in text
    assert "&lt;b&gt;bad &amp; &#39;*worse*&#39;" in text
    card = reported[1][1].read_text()
    assert NASTY not in card and r"| &lt;b&gt;bad &amp; &#39;\*worse\*&#39; |" in card


def test_the_page_holds_the_table_of_the_run(reported):
    run, (page, _) = reported
    text = page.read_text()
    packed = re.search(r'<script type="text/plain" id="image-table">([^<]*)</script>', text)[1]
    blocks = json.loads(zlib.decompress(base64.b64decode(packed)))
    table = [{"path": folder + name, "label": label, "split": split, "group": group} for folder, label, split, group, names in blocks for name in names]
    assert table == read_csv(run.folder / "images.csv")
    offered = {html.unescape(path): html.unescape(label) for path, label in re.findall(r'data-path="([^"]*)" data-label="([^"]*)"', text)}
    assert len(offered) >= 12 and offered.items() <= {row["path"]: row["label"] for row in table}.items()
    about = json.loads(re.search(r'id="choice-settings">(.*?)</script>', text)[1])
    assert about["classes"] == run.manifest["classes"] and about["file"] == "images-cleaned.csv" and run.id in about["run"]
    assert about["command"].startswith("tlfast train images-cleaned.csv ") and "--label-smoothing 0.1" in about["command"]


def test_a_report_after_the_images_are_gone(reported, tmp_path):
    from tlfast.commands import report

    run, _ = reported
    said = []
    moved = shutil.move(run.folder.parents[2] / "images", tmp_path / "away")
    try:
        page = Path(report.report_run(run, on_event=lambda event: said.append(getattr(event, "note", ""))).files[0])
        assert any("no activation maps" in note for note in said)
        text = page.read_text()
        assert ">not available<" in text and "data:image" not in text and "The images were not checked" in text
        assert 'id="image-table"' not in text and "data-path" not in text
    finally:
        shutil.move(moved, run.folder.parents[2] / "images")
    report.report_run(run)
    assert ">not available<" not in page.read_text()


def test_without_paths_page_and_card_name_no_folder_above_the_images(reported, tmp_path):
    from tlfast.commands import report

    run, _ = reported
    above = str(Path(run.manifest["settings"]["data"]).parent)
    shutil.copytree(run.folder, tmp_path / "copy")
    copied = runs.read_run(tmp_path / "copy")
    pages = [Path(file).read_text() for file in report.report_run(copied).files]
    assert all(above in html.unescape(page) for page in pages)
    assert 'id="image-table"' in pages[0]
    pages = [html.unescape(Path(file).read_text()) for file in report.report_run(copied, contents=report.Contents(paths=False)).files]
    assert 'id="image-table"' not in pages[0] and "data-path" not in pages[0] and "Made with --no-paths: the page has no table" in pages[0]
    assert not any(above in page or str(tmp_path) in page for page in pages)
    assert "tlfast train images --" in pages[1]
    assert runs.read_run(tmp_path / "copy").manifest == run.manifest


def test_the_test_part_needs_an_evaluation_first(reported):
    with pytest.raises(errors.RunError, match="no predictions for the test split") as caught:
        report_pages.read_evaluation(reported[0], "test")
    assert "--split test" in caught.value.hint


@pytest.mark.slow
def test_a_hundred_classes_and_many_images_stay_small(reported, tmp_path, monkeypatch):
    run, _ = reported
    rng, n, classes = np.random.default_rng(0), 20_000, [f"class {i}" for i in range(100)]
    labels, logits = rng.integers(0, 100, n), rng.normal(size=(n, 100)).astype(np.float32)
    logits[np.arange(n), labels] += 2
    said = Predictions([], classes, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels)
    metrics = evaluate(said, "valid", 1.0)
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "metrics.json").write_text(json.dumps(metrics.to_dict()))
    probabilities = np.exp(said.log_probabilities)
    columns = {"path": [f"{i}.jpg" for i in range(n)], "label": [classes[i] for i in labels], "prediction": [classes[i] for i in logits.argmax(axis=1)]}
    columns |= {"loss": -said.log_probabilities[np.arange(n), labels], **{f"p({name})": probabilities[:, i] for i, name in enumerate(classes)}}
    parquet.write_table(pa.table(columns), folder / PREDICTIONS_FILE)
    noise = Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8))  # as large as a thumbnail can be
    monkeypatch.setattr(images, "open_image", lambda path, side: noise.copy())
    findings = [Finding(kind, f"{i}.jpg", "a", "train", "other.jpg", "b", "valid") for kind in FINDING_KINDS for i in range(99)]
    manifest = {**run.manifest, "data": {**run.manifest["data"], "counts": {"train": dict.fromkeys(classes, 9)}}}
    copied = runs.RunRecord(folder, manifest)
    (page, _) = report_pages.write_report(copied, report_pages.read_evaluation(copied, "valid"), report_pages.Evidence({}, findings))
    assert 3_500_000 < page.stat().st_size < 8_000_000


@needs_browser
def test_images_are_dropped_and_relabelled_in_a_browser(browser, reported, tmp_path):
    run, (path, _) = reported
    with opened_page(browser, "desktop") as opened:
        page = opened.page
        page.goto(path.as_uri())
        assert not page.is_visible("#choices")
        places = page.eval_on_selector_all(".choice", "all => all.map(place => ({...place.dataset}))")
        dropped, kept = places[0]["path"], places[1]["path"]
        changed = next(place for place in places[2:] if place["label"] != NASTY and place["path"] not in (dropped, kept))["path"]
        for chosen, option in ((dropped, "drop"), (kept, "drop"), (kept, "keep"), (changed, NASTY)):
            page.locator(".choice").nth([place["path"] for place in places].index(chosen)).locator("select").select_option(label=option)
        same = page.eval_on_selector_all(".choice", "(all, path) => all.filter(each => each.dataset.path === path).map(each => each.firstChild.value)", dropped)
        assert set(same) == {"drop"}
        page.reload()
        assert page.inner_text("#choices .count") == "1 to drop, 1 to relabel"
        with page.expect_download() as started:
            page.click("#choices .download")
        started.value.save_as(tmp_path / started.value.suggested_filename)
        assert "60 of 61 images" in page.inner_text("#choices .result")
        assert accessibility_faults(page) == []
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("#choices .clear")
        assert page.inner_text("#choices .count") == "0 to drop, 0 to relabel"
        assert opened.errors == []
    wanted = [{**row, "label": NASTY} if row["path"] == changed else row for row in read_csv(run.folder / "images.csv") if row["path"] != dropped]
    assert read_csv(tmp_path / "images-cleaned.csv") == wanted


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@needs_browser
@pytest.mark.parametrize("size", SIZES)
def test_in_a_browser(browser, reported, size):
    with opened_page(browser, size) as opened:
        check_page(opened, reported[1][0])


def check_page(opened, path):
    page = opened.page
    page.goto(path.as_uri())
    page.locator("[data-cell]").first.click()
    assert page.locator("dialog[open] li img").count() >= 1
    assert page.evaluate("[...document.querySelectorAll('dialog[open] img')].every((image) => image.naturalWidth > 0)")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0

    def column(number):
        return page.eval_on_selector_all("#scores tbody tr", f"rows => rows.map(row => row.children[{number}].textContent)")

    page.click("#scores thead th:nth-child(4) button")
    assert column(3) == sorted(column(3), key=float, reverse=True)
    page.click("#scores thead th:nth-child(4) button")
    assert column(3) == sorted(column(3), key=float)
    page.click("#scores thead th:nth-child(1) button")
    assert len(set(column(0))) == 3 and page.get_attribute("#scores thead th:nth-child(1)", "aria-sort") == "descending"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert accessibility_faults(page) == []
    assert opened.messages == [] and [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
