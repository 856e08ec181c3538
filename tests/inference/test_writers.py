"""Logs of files of predictions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pyarrow import parquet

from tlfast.core.errors import UsageError
from tlfast.inference import open_writer, writers
from tlfast.inference.types import Prediction, PredictRow
from tlfast.inference.writers import Origin

CLASSES = ("cat", "dog")


def row(name: str) -> PredictRow:
    return PredictRow(name, Prediction("cat", 0.9, {"cat": 0.9, "dog": 0.1}))


def interrupt(target):
    with pytest.raises(KeyboardInterrupt), open_writer("jsonl", target, Origin("one", CLASSES), 0.0, resume=True) as (_, write):
        write(row("a.png"))
        raise KeyboardInterrupt


def test_a_log_is_continued_only_with_the_run_that_began_it(tmp_path):
    target = tmp_path / "answers.jsonl"
    interrupt(target)
    for run, classes in (("two", CLASSES), ("one", ("rose", "tulip"))):
        with pytest.raises(UsageError, match="was begun with another run, one") as caught, open_writer("jsonl", target, Origin(run, classes), 0.0, resume=True):
            pass
        assert caught.value.hint == "Continue it with that run, or give another file name"
    with open_writer("jsonl", target, Origin("one", CLASSES), 0.0, resume=True) as (finished, write):
        assert finished == {"a.png"}
        write(row("b.png"))
    assert [json.loads(line)["path"] for line in target.read_text().splitlines()] == ["a.png", "b.png"]


def test_a_log_is_continued_only_with_the_network_that_began_it(tmp_path):
    target, plain = tmp_path / "answers.jsonl", Origin("one", CLASSES, "model.onnx", "a" * 64)
    with pytest.raises(KeyboardInterrupt), open_writer("jsonl", target, plain, 0.0, resume=False) as (_, write):
        write(row("a.png"))
        raise KeyboardInterrupt
    other = Origin("one", CLASSES, "model.tta-flip.onnx", "b" * 64)
    with pytest.raises(UsageError, match=r"was begun with another network, model\.onnx"), open_writer("jsonl", target, other, 0.0, resume=True):
        pass
    with open_writer("jsonl", target, plain, 0.0, resume=True) as (finished, _):
        assert finished == {"a.png"}


def test_a_log_of_an_earlier_version_is_continued(tmp_path):
    target = tmp_path / "answers.jsonl"
    (tmp_path / "answers.jsonl.partial").write_text('{"path": "a.png", "p": [0.9, 0.1]}\n{"path": "b.p')
    with open_writer("jsonl", target, Origin("one", CLASSES), 0.0, resume=True) as (finished, write):
        assert finished == {"a.png"}
        write(row("b.png"))
    assert [json.loads(line)["label"] for line in target.read_text().splitlines()] == ["cat", "cat"]


def test_names_that_are_not_utf8_are_written_to_every_file(tmp_path):
    row = PredictRow(os.fsdecode(b"b\xff.png"), None, "damaged")
    for kind in ("csv", "jsonl", "parquet"):
        with open_writer(kind, tmp_path / f"p.{kind}", Origin("r", ["a", "b"]), 0.0, resume=False) as (_, write):
            write(row)
    assert parquet.read_table(tmp_path / "p.parquet")["path"].to_pylist() == ["b\ufffd.png"]
    assert b"b\xff.png" in (tmp_path / "p.csv").read_bytes()


@pytest.mark.parametrize("line", ["hello", "[1]", '{"a": 1}'])
def test_a_foreign_log_is_not_continued(tmp_path, line):
    (tmp_path / "a.csv.partial").write_text(line + "\n")
    with pytest.raises(UsageError, match="is not a log of tlfast"), open_writer("csv", tmp_path / "a.csv", Origin("r", ["a"]), 0.0, True):
        pass
    assert (tmp_path / "a.csv.partial").read_text() == line + "\n"


def test_a_folder_is_no_file(tmp_path):
    for target in (tmp_path, Path(".")):
        with pytest.raises(UsageError, match="this is a folder"), open_writer("csv", target, Origin("r", ["a"]), 0.0, False):
            pass


def test_after_an_error_a_log_without_rows_goes_and_one_with_rows_stays(tmp_path):
    for count in (0, 1):
        with pytest.raises(ZeroDivisionError), open_writer("csv", tmp_path / "a.csv", Origin("r", CLASSES), 0.0, False) as (_, write):
            for _ in range(count):
                write(row("x.jpg"))
            raise ZeroDivisionError
        assert [path.name for path in tmp_path.iterdir()] == ["a.csv.partial"][:count]


def test_a_log_has_one_writer(tmp_path):
    with open_writer("csv", tmp_path / "a.csv", Origin("r", ["a"]), 0.0, False) as (_, write):
        write(PredictRow("x.jpg", None, "unreadable"))
        with pytest.raises(UsageError, match="is being written by another command"), open_writer("csv", tmp_path / "a.csv", Origin("r", ["a"]), 0.0, True):
            pass
    assert (tmp_path / "a.csv").read_text().count("x.jpg") == 1


def test_a_file_that_is_being_converted_has_one_writer(tmp_path, monkeypatch):
    found, target, convert = [], tmp_path / "a.csv", writers.WRITERS["csv"]

    def interrupt(*arguments):
        with pytest.raises(UsageError, match="is being written by another command"), open_writer("csv", target, Origin("r", ["a"]), 0.0, True):
            pass
        found.append(target.exists())
        convert(*arguments)

    monkeypatch.setitem(writers.WRITERS, "csv", interrupt)
    with open_writer("csv", target, Origin("r", ["a"]), 0.0, False) as (_, write):
        write(PredictRow("x.jpg", None, "unreadable"))
    assert found == [False] and [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_reading_and_converting_a_log_report_their_progress(tmp_path, monkeypatch):
    interrupt(tmp_path / "a.csv")
    monkeypatch.setattr(writers, "REPORTED_BYTES", 1)
    events = []
    with open_writer("csv", tmp_path / "a.csv", Origin("one", CLASSES), 0.0, True, events.append):
        assert [(event.phase, event.done < event.total) for event in events] == [("reading a.csv.partial", True), ("reading a.csv.partial", False)]
    assert [(event.phase, event.done < event.total) for event in events[2:]] == [("writing a.csv", True), ("writing a.csv", False)]


def test_a_row_with_damaged_probabilities_is_an_error(tmp_path):
    (tmp_path / "a.csv.partial").write_text('{"path": "a.png", "p": [0.9, \0]}\n')
    with pytest.raises(UsageError, match="is not a log of tlfast"), open_writer("csv", tmp_path / "a.csv", Origin("one", CLASSES), 0.0, True):
        pass


def test_row_groups_of_many_classes_have_fewer_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "MAX_CELLS", 18)  # three rows of six columns
    with open_writer("parquet", tmp_path / "a.parquet", Origin("one", CLASSES), 0.0, False) as (_, write):
        for number in range(7):
            write(row(f"{number}.png"))
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 3, 1]
    assert file.read()["path"].to_pylist() == [f"{number}.png" for number in range(7)]
