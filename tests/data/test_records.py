"""Records of tables: line ends, quotes, empty tables and lines that cannot be read."""

from __future__ import annotations

import pytest

from tlfast.core.errors import DataError
from tlfast.data import records


def test_quoted_names_in_a_csv_file_keep_their_line_breaks(tmp_path):
    (tmp_path / "list.csv").write_bytes('path,label\r\n"a\nb.png",x\r\n"c\rd.png",y\r\ne\x0b\u2028f.png,"z,\r\n"\r\n'.encode())
    columns, rows = records.read_records(tmp_path / "list.csv")
    assert columns == ["path", "label"]
    assert [tuple(record.values()) for record in rows] == [("a\nb.png", "x"), ("c\rd.png", "y"), ("e\x0b\u2028f.png", "z,\r\n")]
    (tmp_path / "old.csv").write_bytes(b"path,label\ra.png,x\rb.png,y\r")
    assert [record["label"] for record in records.read_records(tmp_path / "old.csv")[1]] == ["x", "y"]


def test_an_empty_table(tmp_path):
    (tmp_path / "list.csv").write_text("\n")
    with pytest.raises(DataError, match="list.csv is empty"):
        records.read_records(tmp_path / "list.csv")


def test_empty_cells_beyond_the_columns_do_no_harm(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\na.png,red,\nb.png,red,,\n")
    assert [record["path"] for record in records.read_records(tmp_path / "a.csv")[1]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [('path,label\n"' + "a" * 200_000 + '",red', "field larger"), ("path,label\na.png,red,extra", "line 2: more cells than columns")],
    ids=["cell", "cells"],
)
def test_lines_of_tables_that_cannot_be_read(tmp_path, text, problem):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        list(records.read_records(tmp_path / "a.csv")[1])
