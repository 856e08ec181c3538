"""tlfast doctor."""

from __future__ import annotations

import torch

from tlfast import tasks
from tlfast.core import UsageError, cache, system


def test_tasks_and_doctor(cli):
    assert {row["name"] for row in cli("tasks", "--json").json} == set(tasks.registered_tasks())
    facts = cli("doctor", "--json").json
    assert facts["hub"].startswith("https://") and facts["interrupted trainings"] == [] and facts["math libraries"]
    assert facts["versions"]["fastai"] and "cpu" in facts["devices"] and isinstance(facts["problems"], list)


def test_mistakes_in_the_environment_are_problems_and_no_errors(cli, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert cli("doctor", "--json").json["embedded backbones"] == ["tf_efficientnet_lite0"]
    for name, said in (("TLFAST_CACHE", "cannot write to the cache"), ("TLFAST_WEIGHTS", "which is not a folder: set it to a folder of")):
        monkeypatch.setenv(name, str(tmp_path / "file"))
        facts = cli("doctor", "--out", tmp_path / "file", "--json").json
        assert any(said in problem and str(tmp_path / "file") in problem for problem in facts["problems"])
        assert any("name a folder that can be written with --out" in problem for problem in facts["problems"])
        monkeypatch.delenv(name)
    assert not any(str(tmp_path) in problem for problem in cli("doctor", "--json").json["problems"])
    assert not (tmp_path / "exports").exists()


def test_a_cache_without_a_folder_is_a_problem(cli, monkeypatch):
    def refuse():
        raise UsageError("there is no home folder for the cache", "Name a folder in TLFAST_CACHE")

    monkeypatch.setattr(cache, "find_root", refuse)
    facts = cli("doctor", "--json").json
    assert facts["cache"] == "none: there is no home folder for the cache"
    assert "there is no home folder for the cache: name a folder in TLFAST_CACHE" in facts["problems"]


def test_doctor_says_that_the_cores_are_busy(cli, monkeypatch):
    for load, said in ((0.0, False), (99.0, True)):
        monkeypatch.setattr(system, "load_average", lambda load=load: load)
        problems = cli("doctor", "--json").json["problems"]
        assert any("other programs use the cores" in problem for problem in problems) == said


def test_a_gpu_that_torch_cannot_use_is_a_problem_and_no_crash(cli, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # counted by NVML, which works with any driver
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("get_device_name", "init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    facts = cli("doctor", "--json").json
    assert facts["devices"] == ["cpu"]
    assert any("1 NVIDIA GPU" in problem and "driver on your system is too old" in problem and "update" in problem for problem in facts["problems"])
