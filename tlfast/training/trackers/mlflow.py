"""MLflow: a run in an experiment, on a server or in a local sqlite database."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, ClassVar

from ...core.files import move_file
from .base import RunInfo, Status

KEY, GROUP = "tlfast.key", "tlfast.comparison"  # tags
SQLITE = "sqlite:///"
STATUSES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
MAX_PARAMS, MAX_PARAM_LENGTH = 100, 6000  # limits of MLflow: params of a batch, characters of a value
MAX_KEY_LENGTH = 240  # characters of a key before its number; the limit of MLflow is 250
DEFAULTS = {  # of environment variables
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that is out of reach fails during the training, not after it
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow:
    """Writes params, metrics and artifacts by MlflowClient; without the fluent API, whose active run is global."""

    name: ClassVar[str] = "mlflow"
    title: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"
    install: ClassVar[str] = 'pip install "tlfast[mlflow]"'
    place: ClassVar[str] = "`MLFLOW_TRACKING_URI`, by default `mlflow.db` and `mlruns/` in the current folder; `MLFLOW_EXPERIMENT_NAME`"
    logs_load: ClassVar[bool] = False

    def start(self, run_id: str, config: RunInfo) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        _create_database()
        self.client = MlflowClient()
        experiment = _find_experiment(self.client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or config.project)
        found = self.client.search_runs([experiment], f"tags.`{KEY}` = '{config.key}'", max_results=1) if config.resumed else []
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            return  # its params cannot be changed
        tags = {KEY: config.key, "mlflow.source.name": "tlfast", **({GROUP: config.group} if config.group else {})}
        self.id = self.client.create_run(experiment, run_name=run_id, tags=tags).info.run_id
        self._log_params(config.flat())

    def _log_params(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in zip(_name_params(values), values.values(), strict=True)]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(self.id, params=params[first : first + MAX_PARAMS])

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(_clean(name), value, now, step) for name, value in values.items()])

    def file(self, path: Path) -> None:
        self.client.log_artifact(self.id, str(path))

    def end(self, status: Status) -> None:
        self.client.set_terminated(self.id, STATUSES[status])


def _create_database() -> None:
    """Create a local sqlite database under another name, then rename it.

    MLflow creates its tables in seconds, and cannot use a database in which some are missing: that of a process that was stopped meanwhile.
    """
    from mlflow import get_tracking_uri
    from mlflow.tracking import MlflowClient

    address = get_tracking_uri()
    path = Path(address.removeprefix(SQLITE))
    if not address.startswith(SQLITE) or path.exists():
        return
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        MlflowClient(f"{SQLITE}{temporary}").search_experiments()
        with suppress(FileExistsError):  # another process was faster
            move_file(temporary, path)


def _find_experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created if there is none."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _clean(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _name_params(names: Iterable[str]) -> list[str]:
    """Return keys of params that MLflow accepts, all different: "-2", "-3"... is added to a key that is taken, and "/" is replaced.

    MLflow refuses keys that are no normalized paths, such as "counts.//".
    """
    keys: dict[str, None] = {}
    for name in names:
        key = _clean(name).replace("/", "_")[:MAX_KEY_LENGTH]
        candidates = chain([key], (f"{key}-{number}" for number in count(2)))
        keys[next(each for each in candidates if each not in keys)] = None
    return list(keys)


TRACKER = MLflow
