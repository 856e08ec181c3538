"""What the file of an offline run of Weights & Biases holds, by the messages of wandb."""

from __future__ import annotations

import json
import struct

import pytest
from PIL import Image

from tests.helpers.command_line import python
from tests.helpers.paths import ROOT

pytest.importorskip("wandb")

WRITE = """
from pathlib import Path
from tests.helpers.trackers import CONFIG, write_records
from tlfast.training.trackers.base import RunInfo
from tlfast.training.trackers.wandb import WeightsAndBiases
write_records(WeightsAndBiases(), RunInfo("task", "out", "key", group="compare-1", values=CONFIG), [Path("matrix.png"), Path("run.json")])
write_records(WeightsAndBiases(), RunInfo("task", "out", "key", resumed=True), [], steps=(30, 40), status="interrupted")
"""
BLOCK, HEADER = 32_768, 7  # bytes; the file is a log of LevelDB, with a header of its own


def read_records(path):
    """Return the messages of a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    content, position, parts, records = path.read_bytes(), HEADER, b"", []
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def test_records_and_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (6, 4)).save("matrix.png")
    (tmp_path / "run.json").write_text("{}")
    done = python(WRITE, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_PROJECT="mine", PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    histories, runs = {}, []
    for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")):
        for record in read_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                runs.append(record.run)
            elif kind == "history":
                values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
                histories.setdefault(values["_step"], {}).update(values)
    assert {(run.run_id, run.display_name, run.project) for run in runs} == {("key", "my-run", "mine")}
    assert [step for step in sorted(histories) if "epoch/accuracy" in histories[step]] == [10, 20, 30, 40]
    assert histories[10]["epoch/accuracy"] == 0.25 and histories[20]["final/accuracy"] == 0.75
    assert "matrix" in str(histories[20].keys())
    assert any(update.nested_key == ["settings"] or update.key == "settings" for run in runs for update in run.config.update)
