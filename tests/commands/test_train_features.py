"""`tlfast train --engine`: cached features by the tasks of an engine."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.command_line import TINY, invoke
from tests.helpers.engines import BIRDS, Recorded
from tlfast.commands import elsewhere, train_features
from tlfast.core import UsageError
from tlfast.distributed import engines
from tlfast.tasks import folder_task, resolve_settings

QUICK = [*TINY, "--epochs", 2, "--freeze-epochs", 1, "--views", 3, "--amp", "off", "--json"]


@pytest.fixture
def recorded(monkeypatch):
    """The items of each work of the engine "ray"."""
    monkeypatch.setitem(engines.ENGINES, "ray", Recorded)
    monkeypatch.setattr(Recorded, "open", classmethod(lambda cls, address, cpus, gpus: cls()))
    monkeypatch.setattr(Recorded, "items", [])
    return Recorded.items


def test_batches_of_open_size_are_not_empty_when_the_precision_is_chosen(cli, pictures, recorded, monkeypatch):
    sizes, choose = [], train_features.pass_precision
    monkeypatch.setattr(train_features, "pass_precision", lambda network, session, settings: sizes.append(settings.bs) or choose(network, session, settings))
    outcome = cli("train", pictures, *QUICK, "--bs", "auto", "--engine", "ray")
    assert outcome.code == 0 and min(sizes) > 0


def read_history(outcome, root: Path) -> pd.DataFrame:
    """Return the epochs without their times."""
    assert outcome.code == 0, outcome.err
    return pd.read_csv(root / outcome.json["folder"] / "history.csv").drop(columns="seconds")


def count_passes(outcome) -> list[tuple[int, int]]:
    """Return the images of each phase whose features were computed by the training itself, and those that were cached."""
    return [(phase["features"]["images"], phase["features"]["kept"]) for phase in outcome.json["phases"] if phase["features"]]


@pytest.mark.parametrize("way", [[], ["--depth", 1]])
def test_features_of_an_engine_are_those_of_the_training(cli, tmp_path, monkeypatch, pictures, recorded, way):
    here = cli("train", pictures, *QUICK, *way)
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "other"))
    there = cli("train", pictures, *QUICK, *way, "--engine", "ray")
    assert recorded == [[0, 1, 2]]
    pd.testing.assert_frame_equal(read_history(there, tmp_path), read_history(here, tmp_path))
    (computed, kept), *_ = count_passes(here)[-1:]
    assert computed > 0 and kept == 0
    assert count_passes(there)[-1] == (0, computed)
    assert cli("train", pictures, *QUICK, *way, "--engine", "ray", "--views", 4).code == 0
    assert recorded[1:] == [[3]]


def test_an_engine_computes_the_views_for_which_there_is_room(cli, pictures, recorded):
    outcome = cli("train", pictures, *QUICK, "--depth", 3, "--views", 4, "--cache-gb", 0.0003, "--engine", "ray")
    assert outcome.code == 0 and "need more room than there is: using --depth" in outcome.err
    assert len(recorded[0]) == outcome.json["settings"]["views"] < 4
    computed, kept = count_passes(outcome)[-1]
    assert computed == 0 and kept > 0


def test_other_processes_execute_the_file_of_a_task(cli, tmp_path, pictures, recorded):
    (tmp_path / "birds.py").write_text(BIRDS)
    outcome = cli("train", "birds.py", "--data", pictures, *QUICK, "--engine", "ray")
    assert outcome.code == 0, outcome.err
    assert recorded == [[0, 1, 2]]


def test_a_machine_with_another_cache_is_named(cli, pictures, recorded, monkeypatch):
    monkeypatch.setattr(elsewhere, "ARRIVAL_SECONDS", 0.0)
    monkeypatch.setattr(train_features, "extract_view", lambda *arguments: None)  # its files are on another disk
    outcome = cli("train", pictures, *QUICK, "--engine", "ray")
    assert outcome.code == 2 and "is not in the cache of this machine" in outcome.err and "TLFAST_CACHE" in outcome.err


def test_an_error_ends_the_work_of_the_engine(pictures, recorded, monkeypatch):
    ended = []

    def run(self, work, items):
        try:
            yield from map(work, items)
        finally:
            ended.append(True)

    monkeypatch.setattr(Recorded, "run", run)
    monkeypatch.setattr(elsewhere, "ARRIVAL_SECONDS", 0.0)
    monkeypatch.setattr(train_features, "extract_view", lambda *arguments: None)
    task = folder_task(pictures)
    settings = resolve_settings(task, None, {"data": str(pictures), "arch": "test_resnet", "weights": "none", "size": 32})
    with pytest.raises(UsageError, match="is not in the cache of this machine") as caught:
        train_features.compute_features(task, settings, Recorded())
    assert ended and caught.tb  # also while the traceback is kept, as in a notebook


def test_the_run_and_the_trackers_are_checked_before_the_engine_works(cli, tmp_path, pictures, recorded):
    (tmp_path / "exports" / "pictures" / "first").mkdir(parents=True)
    for flags, message in ((["--name", "first"], "a run named 'first' exists already"), (["--log", "wanbd"], "wanbd")):
        outcome = cli("train", pictures, *TINY, *flags, "--engine", "ray")
        assert outcome.code == 2 and message in outcome.err
    assert not recorded


@pytest.mark.parametrize(
    ("flags", "message", "hint"),
    [
        (["--full"], "full training with these settings has none to share", "for all layers on several GPUs use --gpus"),
        (["--train-bn"], "partial training with these settings has none to share", "Use --partial or --depth N"),
        (["--depth", "auto"], "--engine ray is given with an open depth", "such as --depth 2"),
        (["--minutes", 2], "--engine ray is given with an open depth", "such as --depth 2"),
        (["--store", "ram"], "needs cached features on a disk, but --store is ram", "Use --store disk"),
    ],
)
def test_what_an_engine_cannot_compute(cli, pictures, recorded, flags, message, hint):
    outcome = cli("train", pictures, *TINY, *flags, "--engine", "ray")
    assert outcome.code == 2
    assert message in outcome.err and hint in outcome.err
    assert not recorded


def test_options_of_ray_without_ray(cli, pictures):
    outcome = cli("train", pictures, *TINY, "--cpus", 2)
    assert outcome.code == 2 and "--cpus 2 is given without --engine ray" in outcome.err


@pytest.mark.slow
def test_views_are_tasks_of_ray(cluster, tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    outcome = invoke("train", pictures, *QUICK, "--engine", "ray", "--address", cluster.address)
    assert outcome.code == 0, outcome.err
    ((computed, kept),) = count_passes(outcome)
    assert computed == 0 and kept > 0
