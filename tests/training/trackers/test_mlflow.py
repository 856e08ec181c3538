"""What MlflowClient finds."""

from __future__ import annotations

import pytest

from tests.helpers.trackers import CONFIG, write_records
from tlfast.training.trackers.base import RunInfo
from tlfast.training.trackers.mlflow import MLflow, _name_params

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of a new database in the current folder, which is where MLflow puts it."""
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def test_names_of_params_are_valid_and_differ():
    assert _name_params(["n.+", "n.=", "n._-2", "n.a/b", "n.//", "n.é"]) == ["n._", "n._-2", "n._-2-2", "n.a_b", "n.__", "n.é"]
    keys = _name_params([300 * "a" + "b", 300 * "a" + "c"])
    assert len(set(keys)) == 2 and max(map(len, keys)) <= 250  # the limit of MLflow


def find_runs(client, project="tlfast-task"):
    return client.search_runs([client.get_experiment_by_name(project).experiment_id])


def test_records_and_resume(client, tmp_path, monkeypatch):
    table = tmp_path / "run.json"
    table.write_text("{}")
    write_records(MLflow(), RunInfo("task", "out", "key", group="compare-1", values=CONFIG), [table], status="interrupted")
    (run,) = find_runs(client)
    assert run.info.run_name == "my-run" and run.info.status == "KILLED" and run.data.tags["tlfast.comparison"] == "compare-1"
    assert run.data.params["settings.bs"] == "64" and run.data.params["data.fingerprint"] == "abc" and run.data.params["settings.limit"] == ""
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "epoch/accuracy")] == [(10, 0.25), (20, 0.75)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["run.json"]
    write_records(MLflow(), RunInfo("task", "out", "key", resumed=True, values=CONFIG), [], steps=(30, 40))
    write_records(MLflow(), RunInfo("task", "out", "other", resumed=True), [])  # began without MLflow
    runs = {run.data.tags["tlfast.key"]: run for run in find_runs(client)}
    assert set(runs) == {"key", "other"} and runs["key"].info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(runs["key"].info.run_id, "epoch/accuracy")] == [10, 20, 30, 40]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    write_records(MLflow(), RunInfo("task", "out", "key"), [])
    assert len(find_runs(client, "mine")) == 1


def test_a_database_is_complete_or_absent(client, tmp_path, monkeypatch):
    import mlflow.tracking

    address = f"sqlite:///{tmp_path}/new.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    class Stopped(mlflow.tracking.MlflowClient):
        def search_experiments(self, *arguments, **options):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.tracking, "MlflowClient", Stopped)
        with pytest.raises(KeyboardInterrupt):
            MLflow().start("my-run", RunInfo("task", "out", "key"))
    assert not (tmp_path / "new.db").exists() and not list(tmp_path.glob(".mlflow-*"))
    write_records(MLflow(), RunInfo("task", "out", "key"), [])
    assert len(find_runs(mlflow.tracking.MlflowClient(address))) == 1
