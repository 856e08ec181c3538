"""tlfast doctor."""

from __future__ import annotations

import torch

from tlfast import tasks
from tlfast.core import system


def test_tasks_and_doctor(cli):
    assert {row["name"] for row in cli("tasks", "--json").json} == set(tasks.registered_tasks())
    facts = cli("doctor", "--json").json
    assert facts["hub"].startswith("https://") and facts["interrupted trainings"] == [] and facts["math libraries"]
    assert facts["versions"]["fastai"] and "cpu" in facts["devices"] and isinstance(facts["problems"], list)


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
