"""The table that a page holds, and the JavaScript that makes a CSV file of it: what it writes, the library reads."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
import subprocess
import zlib

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.tables import listed
from tlfast.data import Row
from tlfast.evaluation.report.image_choices import Choice, ImageChoices

SCRIPT = ROOT / "tlfast/evaluation/report/templates/cleaned_table.js"
NODE = shutil.which("node")
CALL = """
const table = require(process.argv[1]);
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  const rows = await table.unpackTable(given.packed), choices = new Map(given.choices);
  process.stdout.write(JSON.stringify({ csv: table.toCsv(table.applyChoices(rows, choices)), text: table.describeChoices(choices) }));
})();
"""
ROWS = [
    Row('/photos/drop/a "b", c.png', "drop", "train", "2026-11-28"),
    Row("/photos/drop/two\nlines.png", "drop", "train"),
    Row("/photos/drop/ré 图.png", "drop", "valid"),
    Row("/photos/__proto__/</script>.png", "__proto__", "train"),
    Row("/photos.zip!/k,eep/1.png", "k,eep", "train"),
    Row("/photos.zip!/k,eep/2.png", "k,eep", "valid", "=1+1"),
]


def unpack(packed):
    blocks = json.loads(zlib.decompress(base64.b64decode(packed)))
    return [Row(folder + name, label, split, group) for folder, label, split, group, names in blocks for name in names]


def clean(rows, choices):
    """Return the CSV file that the page writes, and the text of its bar."""
    given = json.dumps({"packed": ImageChoices(rows).pack(), "choices": list(choices.items())})
    done = subprocess.run([NODE, "-e", CALL, str(SCRIPT)], input=given, capture_output=True, text=True, check=True, encoding="utf-8")
    result = json.loads(done.stdout)
    return result["csv"], result["text"]


needs_node = pytest.mark.skipif(not NODE, reason="no Node.js here")


def test_the_table_is_all_images_in_their_order():
    assert unpack(ImageChoices(ROWS).pack()) == ROWS
    assert "<" not in ImageChoices(ROWS).pack()
    assert unpack(ImageChoices([Row("red/1.png", "red", "train")]).pack()) == [Row(os.path.abspath("red/1.png"), "red", "train")]


def test_images_left_out_of_the_training_are_not_in_the_table():
    choices = ImageChoices([*ROWS, Row("/photos/drop/spare.png", "drop", "spare")])
    assert unpack(choices.pack()) == ROWS and choices.find("/photos/drop/spare.png") is None
    assert choices.find(ROWS[4].path) == Choice("/photos.zip!/k,eep/1.png", "k,eep")


def test_without_rows_there_are_no_choices():
    assert not ImageChoices(()) and ImageChoices(ROWS)


def test_the_table_of_many_images_is_small():
    rows = [Row(f"/photos/{label}/{n:06}.png", label, "train") for label in ("a", "b") for n in range(5000)]
    assert len(ImageChoices(rows).pack()) < 5 * len(rows)


@needs_node
def test_the_page_writes_what_python_and_the_library_read(tmp_path):
    written, text = clean(ROWS, {ROWS[1].path: "__proto__", ROWS[2].path: None, "/gone.png": None})
    assert text == "2 to drop, 1 to relabel"
    wanted = [ROWS[0], Row(ROWS[1].path, "__proto__", "train"), *ROWS[3:]]
    assert [Row(**record) for record in csv.DictReader(io.StringIO(written, newline=""))] == wanted
    assert list(listed(tmp_path, written.encode()).rows) == wanted


@needs_node
def test_without_choices_the_page_writes_the_table_as_python_does(tmp_path):
    from tlfast.core.files import write_csv

    write_csv(tmp_path / "images.csv", ROWS)
    assert clean(ROWS, {}) == ((tmp_path / "images.csv").read_bytes().decode(), "0 to drop, 0 to relabel")
