"""What TensorBoard's own reader finds."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.helpers.trackers import CONFIG, write_records
from tlfast.training.trackers.base import RunInfo
from tlfast.training.trackers.tensorboard import TensorBoard

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder):
    found = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0})
    found.Reload()
    return found


def scalars(found, tag):
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_records(tmp_path):
    picture, table, page = tmp_path / "matrix.png", tmp_path / "run.json", tmp_path / "model.onnx"
    Image.new("RGB", (6, 4)).save(picture)
    table.write_text('{"a": 1}')
    page.write_bytes(b"\0")
    write_records(TensorBoard(), RunInfo("task", str(tmp_path / "out"), "key", values=CONFIG), [picture, table, page])
    found = read(tmp_path / "out" / "task" / "tensorboard" / "my-run")
    assert scalars(found, "epoch/accuracy") == [(10, 0.25), (20, 0.75)] and scalars(found, "final/accuracy") == [(20, 0.75)]
    assert found.Images("matrix")[0].encoded_image_string == picture.read_bytes() and found.Images("matrix")[0].width == 6
    texts = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("config", "run.json", "status")}
    assert "| settings.bs | 64 |" in texts["config"] and "| data.counts.train.a | 1 |" in texts["config"]
    assert texts["run.json"] == '```json\n{"a": 1}\n```' and texts["status"] == "finished"
    assert "_hparams_/session_start_info" in found.summary_metadata and "model.onnx" not in found.Tags()["tensors"]


def test_a_resumed_run_continues_in_its_folder(tmp_path):
    write_records(TensorBoard(), RunInfo("task", str(tmp_path), "key"), [], status="interrupted")
    write_records(TensorBoard(), RunInfo("task", str(tmp_path), "key", resumed=True), [], steps=(30, 40))
    assert [step for step, _ in scalars(read(tmp_path / "task" / "tensorboard" / "my-run"), "epoch/accuracy")] == [10, 20, 30, 40]


def test_runs_of_a_comparison_are_in_one_folder(tmp_path):
    write_records(TensorBoard(), RunInfo("task", str(tmp_path), "key", group="compare 1"), [])
    assert scalars(read(tmp_path / "task" / "tensorboard" / "compare-1" / "my-run"), "step/loss") == [(10, 0.5), (20, 0.5)]
