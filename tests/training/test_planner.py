"""Choice of depth, views and epochs: by --minutes, and by the room for activations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved
from tlfast import tasks
from tlfast.core.events import Note
from tlfast.core.journal import Journal
from tlfast.tasks import resolve
from tlfast.training import durations, planner, profiler, trainer, types
from tlfast.training.callbacks import progress
from tlfast.training.types import DepthPlan


def test_minutes_choose_what_fits_and_say_so(cli, folder):
    quick = cli("train", folder, *TINY, "--minutes", 5, "--epochs", 2, "--no-onnx", "--json")
    result = quick.json
    chosen = [choice for choice in result["plan"] if choice["chosen"]]
    assert [choice["depth"] for choice in result["plan"]] == ["0", "1", "2", "3", "4", "all"] and len(chosen) == 1
    assert "predicted cost of each depth" in quick.err
    assert chosen[0]["depth"] == "all" and result["settings"]["strategy"] == "full" and chosen[0]["epochs"] == 2 == result["settings"]["epochs"]
    assert json.loads(Path(result["folder"], "run.json").read_text(encoding="utf-8"))["plan"] == result["plan"]
    assert cli("train", folder, *TINY, "--minutes", 5, "--epochs", 2, "--no-onnx").out.count("(predicted: ") == 1
    again = cli("train", "--config", f"{result['folder']}/run.json", "--json").json
    assert again["evaluation"] == result["evaluation"] and not again["plan"], "what was chosen is enough to repeat the run"


def test_too_few_minutes_train_the_classifier_and_say_so(cli, folder, monkeypatch):
    monkeypatch.setattr(planner, "time_depths", lambda *given: types.Timings([timing("0", 1e-5, 1.0), timing("2", 1.0), timing("all", 1.0)], 1e-4, 1e-5))
    outcome = cli("train", folder, *TINY, "--minutes", 0.1, "--limit", 8, "--no-onnx")
    assert outcome.code == 0 and "no depth fits into 0.1 minutes; the classifier alone takes" in outcome.err


@pytest.mark.parametrize(("lower", "depth"), [(0.002, "2"), (0.02, "0")])
def test_the_share_of_the_time_is_that_of_what_depends_on_the_depth(folder, monkeypatch, lower, depth):
    depths = [timing("0", 1e-6, lower), timing("2", 1e-4, lower), timing("all", 0.02)]
    monkeypatch.setattr(planner, "time_depths", lambda *given: types.Timings([replace(each, uncached=[36] * 8) for each in depths], 1e-6, 1e-6))
    task, chosen = resolved(folder, "depth", depth="auto", epochs=2, freeze_epochs=0, lr=1e-3)
    said = []
    with trainer.prepare(task, chosen, said.append) as session:
        settled, _ = planner.resolve_depth(session, chosen)
    assert (settled.depth, settled.views) == (depth, chosen.views)
    notes = [event.note for event in said if isinstance(event, Note) and "no depth takes less than 45%" in event.note]
    assert len(notes) == (depth == "0")


@pytest.mark.parametrize(("minutes", "epochs"), [(500, 2), (0.1, 1)])
def test_minutes_beside_a_depth_choose_views_and_epochs_only(folder, monkeypatch, minutes, epochs):
    monkeypatch.setattr(planner, "time_depths", lambda *given: types.Timings([timing("0", 1e-5), timing("2", 0.1, 0.2), timing("all", 0.2)], 1e-4, 1e-5))
    task, chosen = resolved(folder, "depth", depth="2", minutes=minutes, epochs=2)
    said = []
    with trainer.prepare(task, chosen, said.append) as session:
        settled, plan = planner.resolve_depth(session, chosen)
    assert settled.depth == "2" and settled.epochs == epochs and [choice.depth for choice in plan if choice.chosen] == ["2"]
    notes = [
        event.note
        for event in said
        if isinstance(event, Note) and event.note.startswith("--depth 2 does not fit into 0.1 minutes; one epoch of --depth 2 takes")
    ]
    assert len(notes) == (minutes < 1)


@pytest.mark.parametrize(("full_step", "faster"), [(0.05, True), (50.0, False)])
def test_full_fine_tuning_that_is_faster_is_reported(folder, monkeypatch, full_step, faster):
    steps = [timing("0", 1e-5), timing("2", 0.1, 0.05), timing("all", full_step)]
    monkeypatch.setattr(planner, "time_depths", lambda *given: types.Timings(steps, 1e-4, 1e-5))
    task, chosen = resolved(folder, "depth", depth="2", minutes=500, epochs=2)
    said = []
    with trainer.prepare(task, chosen, said.append) as session:
        planner.resolve_depth(session, chosen)
    assert any(isinstance(event, Note) and event.note.startswith("--full trains all layers in") for event in said) == faster


def test_a_plan_without_training_shows_the_depths_once(cli, folder):
    for more in ([], ["--quiet"]):
        assert cli("train", folder, *TINY, "--depth", "auto", "--dry-run", *more).err.count("predicted cost of each depth") == 1


def test_timings_that_contradict_each_other_are_told_of():
    said = []
    steady = [DepthPlan(depth, "", speed, 0.0, 1, 8, 60.0) for depth, speed in (("0", 9e4), ("1", 900.0), ("2", 1000.0), ("all", 300.0))]
    planner._warn_of_noise(steady, said.append)
    assert not said
    planner._warn_of_noise([*steady[:2], replace(steady[2], images_per_second=1200.0), steady[3]], said.append)
    assert [event.note for event in said if isinstance(event, Note)] == [
        "the timings contradict each other (depth 1 900 images/s, depth 2 1,200): if other programs are running, the plan is unreliable"
    ]


def timing(depth, step, lower=0.0):
    return types.Timing(depth, "", step, lower, 0.001, [11_000, *[10_000] * 7])


WORK = types.Work(10_000, 1_000, types.Timings([timing("all", 0.008)], augment=0.0002, head=0.00005), elapsed=10.0)


@pytest.mark.parametrize(
    ("seconds", "views", "epochs"), [(10_000, 4, 16), (325, 4, 7), (295, 2, 7), (280, 1, 7), (270, 1, 6), (170, 1, 3), (130, 1, 0), (60, 1, 0)]
)
def test_a_plan_takes_nearly_all_epochs_first_then_views(seconds, views, epochs):
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"minutes": seconds / 60, "views": 4})
    plan = planner._fit_to_time(timing("3", 0.003, 0.001), WORK, chosen, seconds)
    assert (plan.views, plan.epochs) == (views, epochs)
    assert (plan.seconds <= seconds) == bool(epochs)
    typed = resolve.resolve_settings(tasks.get_task("fer"), None, {"minutes": seconds / 60, "views": 4, "epochs": 8})
    assert planner._fit_to_time(timing("3", 0.003, 0.001), WORK, typed, seconds).epochs == min(epochs, 8)


@pytest.mark.parametrize(
    ("depth", "planned", "found", "epochs"),
    [("auto", 1e-6, 1e9, 1), ("2", 1e-6, 1e9, 1), ("2", 10.0, 1e-9, 2)],  # seconds an image: as timed for the plan, as the finder saw them
)
def test_the_finders_steps_say_how_many_epochs_end_in_time(cli, folder, monkeypatch, depth, planned, found, epochs):
    timings = types.Timings([timing("0", 1e-6), timing("2", planned), timing("all", planned)], 1e-6, 1e-6)
    monkeypatch.setattr(planner, "time_depths", lambda *given: timings)
    monkeypatch.setattr(progress.ProgressCallback, "step_seconds", found)
    outcome = cli("train", folder, *TINY, "--lr", "auto", "--depth", depth, "--minutes", 3, "--epochs", 2, "--freeze-epochs", 0, "--no-onnx", "--json")
    result = outcome.json
    assert result["settings"]["depth"] == ("" if depth == "auto" else "2"), "it is all layers that the time suffices for, by the plan"
    assert result["settings"]["epochs"] == epochs == len(result["phases"][-1]["epochs"])
    assert f"{epochs} epochs instead of {3 - epochs} fit the time budget, at" in outcome.err


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([10, 8, 8, 8, 8, 8], 5),  # all of it fits
        ([10, 8, 8, 8, 7, 6], 4),  # nearly all epochs of the middle and above rather than some of more
        ([10, 8, 8, 6, 5, 0], 3),  # or some of the middle
        ([10, 8, 3, 0, 0, 0], 2),  # below the middle another stage is worth more
        ([10, 8, 0, 0, 0, 0], 1),
        ([10, 0, 0, 0, 0, 0], 0),
    ],
)
def test_the_deepest_that_fits_with_nearly_all_its_epochs(epochs, best):
    found = [DepthPlan(str(depth), "", 100.0, 0.0, 2, count, 60.0) for depth, count in enumerate(epochs)]
    assert planner._choose_depth(found, [i for i, count in enumerate(epochs) if count], 8) == best


def test_a_long_preset_is_forecast_and_a_resumed_one_as_before(cli, folder, monkeypatch):
    timings = types.Timings([timing("0", 1e-6), timing("all", 1.0)], 1e-6, 1e-6)
    monkeypatch.setattr(planner, "time_depths", lambda *given: timings)
    outcome = cli("train", folder, *TINY, "--preset", "best", "--epochs", 7, "--dry-run", "--json")
    (plan,) = outcome.json["depths"]
    images = sum(outcome.json["data"]["counts"]["train"].values())
    assert (plan["depth"], plan["epochs"], plan["chosen"]) == ("all", 7, True) and plan["seconds"] > 7 * images
    assert f"--preset best: about {plan['seconds'] / 60:,.0f} minutes for training {plan['trains']}, by the timing of some steps; epochs: 7" in outcome.err
    assert "minutes for training" not in cli("train", folder, *TINY, "--full", "--dry-run", "--json").err
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None, Journal()) as session:
        first = planner.forecast(session, chosen)
        monkeypatch.setattr(planner, "time_depths", lambda *given: pytest.fail("timed again"))
        assert planner.forecast(session, chosen) == first


@pytest.mark.parametrize(("strategy", "depth"), [("partial", "0"), ("depth", "2"), ("full", "all")])
def test_a_forecast_times_the_depth_of_the_training(folder, strategy, depth):
    task, chosen = resolved(folder, strategy, **({"depth": depth} if strategy == "depth" else {}))
    with trainer.prepare(task, chosen, lambda event: None) as session:
        plan = planner.forecast(session, chosen)
    assert (plan.depth, plan.epochs, plan.chosen) == (depth, chosen.epochs, True) and plan.seconds > durations.CLOSING


def test_predictions_grow_with_the_work():
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"depth": "auto"})

    def predict(step=0.003, **changes):
        return planner._predict_plan(timing("3", step, 0.001), WORK, replace(chosen, **changes)).seconds

    assert predict(epochs=9) - predict(epochs=8) == pytest.approx(10_000 * 0.003 + 1_000 * 0.001)
    assert predict(views=5) - predict(views=4) == pytest.approx(10_000 * (0.001 + 0.0002))
    assert predict(lr="1e-3") < predict()


def test_processes_divide_the_images_of_an_epoch():
    chosen = resolve.resolve_settings(tasks.get_task("fer"), "full", {"lr": "1e-3"})
    for depth in ("3", "all"):
        one, four = (
            [planner._predict_plan(timing(depth, 0.003), WORK, replace(chosen, gpus=gpus, epochs=epochs)).seconds for epochs in (8, 9)] for gpus in (1, 4)
        )
        assert one[1] - one[0] == pytest.approx(4 * (four[1] - four[0]))
    assert planner._fit_to_time(timing("all", 0.003), WORK, replace(chosen, minutes=4, gpus=4), 240).epochs == chosen.epochs
    assert planner._fit_to_time(timing("all", 0.003), WORK, replace(chosen, minutes=4), 240).epochs < chosen.epochs


def test_a_plan_of_the_classifier_needs_one_process():
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"minutes": 2.0, "gpus": 2})
    found = {depth: planner._apply_plan(chosen, DepthPlan(depth, "", 100.0, 0.0, 2, 8, 60.0)).gpus for depth in ("0", "3", "all")}
    assert found == {"0": 1, "3": 2, "all": 2}


def test_a_forecast_counts_all_views_and_the_images_of_train_bn():
    full = resolve.resolve_settings(tasks.get_task("fer"), "full", {"views": 4})
    two, four = (planner._predict_plan(timing("all", 0.003), WORK, replace(full, views=views)).seconds for views in (2, 4))
    assert four - two > 2 * 10_000 * 0.001
    partial = resolve.resolve_settings(tasks.get_task("fer"), "partial", {"train_bn": True, "epochs": 5})
    assert planner._predict_plan(timing("0", 1e-5), WORK, partial).seconds > 5 * 10_000 * 0.008


@pytest.mark.parametrize(("way", "views", "seconds"), [({}, 2, 31 * 0.01 + 10 * 0.0002), ({"depth": "3"}, 1, 21 * 0.01), ({"depth": "all"}, 2, 8 * 10 * 0.01)])
def test_a_teacher_takes_time(way, views, seconds):
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"views": views, "lr": 1e-3, "epochs": 8, **way})
    taught = replace(WORK, costs=replace(WORK.costs, teacher=0.01, uncached_teacher=[21_000, 10_000]))
    alone, with_teacher = (planner._predict_plan(timing(way.get("depth", "0"), 0.003, 0.001), work, chosen).seconds for work in (WORK, taught))
    assert with_teacher - alone == pytest.approx(1000 * seconds)


def test_a_backbone_without_declared_stages_is_forecast(folder, monkeypatch):
    monkeypatch.setattr(profiler, "list_stages", lambda *given: pytest.fail("stages are not needed"))
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        assert planner.forecast(session, chosen).depth == "all"
