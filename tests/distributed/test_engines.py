"""Engines give the results of a loop, and errors that say what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from pyarrow import concat_tables, parquet

from tests.helpers.command_line import invoke
from tlfast.core.errors import DataError, TlfastError, UsageError
from tlfast.core.system import count_cores
from tlfast.distributed import ENGINES, open_engine
from tlfast.distributed import engines as engines_module

ray = pytest.importorskip("ray")


def square(number):
    return number * number


def count_of_eight(number):
    """Return the number of cores that tlfast uses in a task on a machine of eight."""
    find, os.sched_getaffinity = os.sched_getaffinity, lambda process: set(range(8))
    try:
        return count_cores()
    finally:
        os.sched_getaffinity = find


def fail(number):
    raise DataError(f"item {number} is wrong", "Correct it")


def crash(number):
    raise ZeroDivisionError("by zero")


@pytest.mark.parametrize("name", ENGINES)
def test_results_are_those_of_a_loop(cluster, name):
    engine = open_engine(name, cluster.address if name == "ray" else "")
    assert sorted(engine.run(square, range(20))) == [n * n for n in range(20)]
    assert list(engine.run(square, [])) == []


def test_tasks_of_ray_use_their_cores(cluster):
    assert set(open_engine("ray", cluster.address).run(count_of_eight, range(4))) == {1}
    assert set(open_engine("local").run(count_of_eight, range(4))) == {8}


def visible_gpus(number):
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_tasks_that_ask_for_no_gpu_see_none(cluster):
    assert list(open_engine("ray", cluster.address).run(visible_gpus, [1])) == [""]


@pytest.mark.parametrize("found", [True, False])
def test_a_task_asks_for_a_gpu_where_auto_is_one(monkeypatch, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert [open_engine("ray", devices=[device]).gpus for device in ("auto", "cuda", "cpu")] == [found, 1, 0]


def test_errors_of_tasks_are_those_of_a_loop(cluster):
    engine = open_engine("ray", cluster.address)
    with pytest.raises(DataError, match="item 1 is wrong") as error:
        list(engine.run(fail, [1]))
    assert error.value.hint == "Correct it"
    with pytest.raises(TlfastError, match="a task failed: ZeroDivisionError: by zero"):
        list(engine.run(crash, [1]))


def test_tasks_that_are_begun_are_cancelled_if_the_caller_stops(cluster, monkeypatch):
    cancelled, cancel = [], ray.cancel
    monkeypatch.setattr(ray, "cancel", lambda task: cancelled.append(task) or cancel(task))
    results = open_engine("ray", cluster.address).run(square, range(50))
    assert next(results) in {n**2 for n in range(50)} and not cancelled
    results.close()
    assert cancelled


def test_tasks_that_no_node_can_run_are_refused(cluster):
    for engine in (open_engine("ray", cluster.address, cpus=64), open_engine("ray", cluster.address, devices=["cuda"])):
        with pytest.raises(UsageError, match="the nodes have 1 cores and 0 GPUs"):
            list(engine.run(square, [1]))


def test_what_cannot_be_opened(monkeypatch):
    with pytest.raises(UsageError, match="--cpus 0 must be at least 1"):
        open_engine("ray", cpus=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="needs the package ray") as error:
        open_engine("ray")
    assert error.value.hint == 'Install it: pip install "tlfast[scale]"'


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no.host.invalid:6379", "127.0.0.1:port"])
def test_an_address_without_a_cluster_is_an_error_before_ray_tries(address, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("it tries for half a minute"))
    with pytest.raises(TlfastError, match=f"no Ray cluster answers at {address}") as error:
        list(open_engine("ray", address).run(square, [1]))
    assert "ray start --head" in error.value.hint


def test_a_local_ray_that_cannot_start(monkeypatch):
    def init(**options):
        raise RuntimeError("no space left for sockets")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(TlfastError, match=r"Ray cannot be started on this machine \(no space left for sockets\)") as error:
        list(open_engine("ray").run(square, [1]))
    assert "--engine local" in error.value.hint


def read_rows(folder):
    return concat_tables([parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))])


@pytest.mark.slow
def test_a_node_that_is_removed_loses_and_doubles_no_row(cluster, remove_node, run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [str(path) for path in sorted(pictures.rglob("*.png"))] * 10
    (tmp_path / "list.csv").write_text("\n".join(["path", *images]))
    model = str(run.folder / "model.onnx")
    assert invoke("predict", model, "list.csv", "--out-dir", "one", "--shards", 40).code == 0
    removed = []

    def remove(ray_module, reference):
        result = ray.get(reference)
        if not removed:
            removed.append(remove_node())
        return result

    monkeypatch.setattr(engines_module, "_get", remove)
    outcome = invoke("predict", model, "list.csv", "--out-dir", "two", "--shards", 40, "--engine", "ray", "--address", cluster.address)
    assert outcome.code == 0 and removed, outcome.err
    assert read_rows(tmp_path / "two").equals(read_rows(tmp_path / "one"))


@pytest.mark.slow
def test_a_killed_driver_is_continued_by_its_command(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [str(path) for path in sorted(pictures.rglob("*.png"))] * 30
    (tmp_path / "list.csv").write_text("\n".join(["path", *images]))
    command = [sys.executable, "-m", "tlfast", "predict", str(run.folder / "model.onnx"), "list.csv", "--out-dir", "two", "--shards", "60", "--engine", "ray"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while process.poll() is None and len(list((tmp_path / "two").glob("part-*"))) < 3:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    written = len(list((tmp_path / "two").glob("part-*")))
    assert 3 <= written < 60
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "parts are there already" in done.stderr, done.stderr
    assert invoke("predict", str(run.folder / "model.onnx"), "list.csv", "--out-dir", "one", "--shards", 60).code == 0
    assert read_rows(tmp_path / "two").equals(read_rows(tmp_path / "one"))
