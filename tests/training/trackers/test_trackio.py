"""What the database of Trackio holds."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.helpers.command_line import python
from tests.helpers.paths import ROOT

pytest.importorskip("trackio")

# In another process: Trackio reads its folder when it is imported.
WRITE = """
from pathlib import Path
from tests.helpers.trackers import CONFIG, write_records
from tlfast.training.trackers.base import RunInfo
from tlfast.training.trackers.trackio import Trackio
write_records(Trackio(), RunInfo("task", "out", "key", values=CONFIG), [Path("matrix.png"), Path("run.json")], status="interrupted")
write_records(Trackio(), RunInfo("task", "out", "key", resumed=True, values=CONFIG), [], steps=(30, 40))
write_records(Trackio(), RunInfo("task", "out", "another"), [])
from trackio.sqlite_storage import SQLiteStorage
import json
runs = SQLiteStorage.get_run_records("tlfast-task")
logs = [SQLiteStorage.get_logs("tlfast-task", run_id=run["id"]) for run in runs]
config = [SQLiteStorage.get_run_config("tlfast-task", "my-run", run_id=run["id"]) for run in runs]
print("RESULT", json.dumps([[run["name"] for run in runs], logs, config], default=str))
"""


def test_records_and_resume(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (6, 4)).save("matrix.png")
    (tmp_path / "run.json").write_text("{}")
    done = python(WRITE, TRACKIO_DIR=str(tmp_path / "records"), PYTHONPATH=str(ROOT))
    assert "RESULT" in done.stdout, done.stderr
    names, logs, configs = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    assert names == ["my-run", "my-run"]
    epochs = sorted([[log["step"] for log in of_run if "epoch/accuracy" in log] for of_run in logs], key=len)
    assert epochs == [[10, 20], [10, 20, 30, 40]]
    resumed = max(logs, key=len)
    assert {log["status"] for log in resumed if "status" in log} == {"interrupted", "finished"}
    assert any("matrix" in log for log in resumed)
    assert any(config and config["settings"]["bs"] == 64 for config in configs)
    assert list((tmp_path / "records").rglob("*.png")) and list((tmp_path / "records" / "artifacts").rglob("*"))
