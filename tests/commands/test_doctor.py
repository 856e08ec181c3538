"""tlfast doctor."""

from __future__ import annotations

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
        assert any("OMP_WAIT_POLICY=PASSIVE" in problem for problem in problems) == said
