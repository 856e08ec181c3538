"""Training of the topmost stages on what the frozen ones below make of the images."""

from __future__ import annotations

import contextlib
import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from timm.models.resnet import ResNet

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved, weights_before_and_after
from tlfast import tasks
from tlfast.cli import formatting
from tlfast.core import cache, runs
from tlfast.core.errors import DataError, UsageError
from tlfast.core.events import Note
from tlfast.core.journal import Journal
from tlfast.models import build, stages
from tlfast.tasks import resolve
from tlfast.training import activations, features, loaders, lr_finder, phase, planner, profiler, trainer, types
from tlfast.training.callbacks import progress
from tlfast.training.strategies import depth
from tlfast.training.types import DepthPlan, RateCurve

SHORT = {"epochs": 2, "freeze_epochs": 1, "onnx": False}


def trained(folder, on_event=lambda event: None, **flags):
    """Train in memory; return the network's weights and the phases."""
    task, chosen = resolved(folder, "depth", **{**SHORT, **flags})
    with trainer.prepare(task, chosen, on_event) as session:
        chosen, _ = planner.settle_depth(session, chosen)
        phases, _ = trainer.fit(session, chosen)
        return {name: value.clone() for name, value in session.learn.model.state_dict().items()}, phases


@pytest.mark.parametrize(
    ("typed", "strategy", "depth"),
    [
        ({"depth": "0"}, "partial", "0"),
        ({"depth": "3"}, "depth", "3"),
        ({"depth": "all"}, "full", "all"),
        ({"depth": "auto"}, "depth", "auto"),
        ({"minutes": 3.0}, "depth", "auto"),
        ({"minutes": 3.0, "depth": "2"}, "depth", "2"),
        ({}, "partial", "0"),
    ],
)
def test_depth_is_one_scale_with_partial_and_full_at_its_ends(typed, strategy, depth):
    fer = tasks.get_task("fer")
    for chosen in (resolve.resolve_settings(fer, None, typed), resolve.resolve_settings(fer, None, {}, typed)):
        assert (chosen.strategy, chosen.depth) == (strategy, depth)
    assert resolve.resolve_settings(fer, None, {"depth": "4"}).epochs == resolve.resolve_settings(fer, "full", {}).epochs


def test_depth_beside_a_strategy():
    fer = tasks.get_task("fer")
    for typed, flag in (({"depth": "3"}, "--depth"), ({"minutes": 2.0}, "--minutes")):
        with pytest.raises(UsageError, match=f"--full and {flag} are both given"):
            resolve.resolve_settings(fer, "full", typed)
    assert resolve.resolve_settings(fer, "full", {}, {"depth": "3", "minutes": 5.0}).strategy == "full"
    for wrong in ("deep", "-1", "2.5"):
        with pytest.raises(UsageError, match=f"--depth {wrong} must be 0, a number of stages"):
            resolve.resolve_settings(fer, None, {"depth": wrong})


def test_only_the_topmost_stages_change(folder):
    changed, body, head = weights_before_and_after(folder, "depth", depth="2", freeze_epochs=0, augment="none")
    upper = {name for name in body if name.startswith(("0.layer3", "0.layer4"))}
    assert not changed & (body - upper)
    assert {name for name in upper | head if name.endswith(("weight", "running_mean"))} <= changed


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_the_cache_changes_nothing_of_what_is_trained(folder, monkeypatch, arch):
    """The same training, its activations made anew for each batch by the lower stages themselves, as if nothing were kept."""
    flags = {"arch": arch, "depth": "2", "views": 1, "augment": "none", "cache_format": "fp32", "epochs": 3}
    ours, phases = trained(folder, **flags)
    extract, made = features.extract, []

    def uncached(body, session, chosen):
        kept = extract(body, session, chosen)
        rows = sorted(session.table.part("train") + session.table.part("valid"), key=lambda row: row.path)
        pixels = torch.cat([x for x, _ in loaders.plain_loader(session.learn.dls, rows, 64)])

        class Remade:
            shape, dtype = kept.train.arrays[0].shape, np.dtype(np.float32)

            def __getitem__(self, chosen):
                made.append(len(chosen))
                with torch.no_grad():
                    return body.eval()(build.to_network_input(pixels[chosen])).numpy()

        return replace(kept, **{name: replace(getattr(kept, name), arrays=[Remade()]) for name in ("train", "valid")})

    monkeypatch.setattr(depth, "extract", uncached)
    theirs, _ = trained(folder, **flags)
    assert sum(made) > 3 * 28 and [phase.name for phase in phases] == ["head", "upper stages"]
    start, _ = trained(folder, **{**flags, "epochs": 1, "lr": "1e-9"})
    assert not all(torch.allclose(start[name].float(), ours[name].float(), atol=1e-3) for name in ours), "nothing was learned"
    for name, value in ours.items():
        assert torch.allclose(value.float(), theirs[name].float(), atol=1e-4), name


@pytest.mark.parametrize(
    ("arch", "depths"),
    [
        ("resnet50", (1, 2, 4)),
        ("mobilenetv2_100", (1, 4, 7)),
        ("tf_efficientnet_lite0", (1, 4, 7)),
        ("convnext_atto", (1, 2, 4)),
        ("vit_tiny_patch16_224", (1, 6, 12)),
        ("poolformer_s12", (1, 2, 4)),  # has no group_matcher, only feature_info
    ],
)
def test_known_backbones_at_three_depths(folder, arch, depths):
    for count in depths:
        _, phases = trained(folder, arch=arch, depth=str(count), epochs=1, views=2)
        assert [phase.name for phase in phases] == ["head", "upper stages"] and len(phases[1].epochs) == 1


def test_a_run_says_how_deep_it_was_trained_and_can_be_repeated(cli, folder):
    first = cli("train", folder, *TINY, "--depth", 2, "--epochs", 2, "--views", 3, "--json").json
    assert first["run"].endswith("-depth-2-test_resnet") and first["settings"]["strategy"] == "depth"
    again = cli("train", "--config", f"{first['folder']}/run.json", "--json").json
    assert again["evaluation"] == first["evaluation"] and again["phases"][1]["features"]["images"] == 0
    assert cli("runs", "--json").json[0]["strategy"] == "depth 2"
    page = cli("report", first["folder"], "--json").json["files"][0]
    assert "depth 2 fine-tuning of test_resnet" in Path(page).read_text(encoding="utf-8")
    said = cli("interpret", first["folder"], "--json").json
    assert said["evaluation"]["accuracy"] == pytest.approx(first["evaluation"]["accuracy"])


@pytest.mark.parametrize("store", ["ram", "off"])
def test_without_a_store_on_disk_the_same_is_kept_in_memory(folder, store):
    kept, _ = trained(folder, depth="2", augment="none")
    for folder_of_kind in cache.list_entries():
        assert folder_of_kind.kind in ("stores", "features", "digests", "rooms", "timings")
    other, _ = trained(folder, depth="2", augment="none", store=store)
    assert all(torch.allclose(kept[name].float(), other[name].float(), atol=1e-5) for name in kept)


def test_int8_takes_half_the_room(folder):
    weights, losses, sizes = [], [], []
    for number_format in ("fp16", "int8"):
        network, phases = trained(folder, depth="2", augment="none", cache_format=number_format)
        weights.append(network)
        losses.append(phases[-1].epochs[-1].train_loss)
        sizes.append(sum(entry.size for entry in cache.list_entries() if entry.kind == "features"))
    assert 0.5 < (sizes[1] - sizes[0]) / sizes[0] < 0.6
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_views_give_way_then_stages_where_there_is_no_room(folder):
    task, chosen = resolved(folder, "depth", depth="3", views=4)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body, counts = session.learn.model[0], features.count_images(session.table, chosen)
        shapes = {d: activations.activation_shape(stages.split_at(body, chosen.arch, d, 32), 32) for d in (1, 2, 3)}

        def room(depth, views):
            return activations.activation_gigabytes(shapes[depth], sum(counts[:views]), chosen)

        for wanted in ((3, 4), (3, 2), (2, 4), (2, 1)):
            limited = replace(chosen, cache_gb=room(*wanted) * 1.0001)
            assert activations.fit_to_disk(session, limited) == (str(wanted[0]), wanted[1]), wanted
        with pytest.raises(UsageError, match="there is no room for the activations of a single stage") as caught:
            activations.fit_to_disk(session, replace(chosen, cache_gb=room(1, 1) / 2))
    assert "topmost takes" in caught.value.message and caught.value.hint.startswith("Give more --cache-gb, or use")


def test_less_room_is_said_before_training(cli, folder):
    outcome = cli("train", folder, *TINY, "--depth", 3, "--epochs", 1, "--views", 4, "--cache-gb", 0.0003)
    assert outcome.code == 0
    assert "depth: what --depth 3 keeps of 4 views takes more room than there is: it is --depth" in outcome.err


def test_a_depth_that_the_backbone_has_not(cli, folder, monkeypatch):
    deep = cli("train", folder, *TINY, "--depth", 9)
    assert deep.code == 2 and "--depth 9: test_resnet has 4 stages above its stem" in deep.err and "up to 4, or all" in deep.err
    monkeypatch.delattr(ResNet, "group_matcher")
    monkeypatch.setattr(ResNet, "feature_info", property(lambda self: [], lambda self, value: None), raising=False)
    unsaid = cli("train", folder, *TINY, "--depth", 2)
    assert unsaid.code == 2 and "test_resnet does not say what its stages are" in unsaid.err
    assert not runs.list_folders("exports")


def test_batchnorm_adapts_with_partial_only(cli, folder):
    outcome = cli("train", folder, *TINY, "--depth", 2, "--train-bn")
    assert outcome.code == 2 and "--train-bn trains on images, of which --depth keeps what the lower stages made" in outcome.err
    assert not runs.list_folders("exports")


def test_a_full_disk_while_activations_are_kept_leaves_nothing(folder, monkeypatch):
    def full(folder, batches):
        (folder / features.FILE).write_bytes(next(batches).tobytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "_write_file", full)
    with pytest.raises(DataError, match="cannot keep features in .*: No space left on device"):
        trained(folder, depth="2")
    assert not [entry for entry in cache.list_entries() if entry.kind in ("features", "unfinished")]


def test_what_is_read_ahead_keeps_its_order_and_its_errors():
    assert list(activations.read_ahead(lambda i: i * i, range(7))) == [i * i for i in range(7)]
    assert list(activations.read_ahead(lambda i: i, [])) == []
    reader = activations.read_ahead(lambda i: 1 // (3 - i), range(7))
    with pytest.raises(ZeroDivisionError):
        list(reader)


def test_an_epoch_takes_each_image_once_in_one_of_its_views():
    part = features.Part([np.arange(40, dtype=np.float16)[:, None] + 100 * view for view in range(3)], [np.arange(40)] * 3, torch.arange(40).repeat(3))
    loader = activations.ActivationLoader(part, 8, True, torch.device("cpu"))
    epochs = [torch.cat([x[:, 0] for x, _ in loader]) for _ in range(2)]
    for taken in epochs:
        assert sorted((taken % 100).tolist()) == list(range(40)) and len(set((taken // 100).tolist())) == 3
    assert not torch.equal(*epochs)
    assert all(torch.equal(x[:, 0].long() % 100, y.as_subclass(torch.Tensor)) for x, y in loader)


def test_a_flat_curve_gives_no_rate_by_chance():
    rates = [1e-5 * 10 ** (i / 12) for i in range(60)]
    flat = [1.6 + 0.01 * (i % 3) if rate < 1e-2 else 1.6 + 30 * rate for i, rate in enumerate(rates)]
    assert lr_finder.find_divergence(rates, flat) == pytest.approx(1.2e-2, rel=0.25)
    assert lr_finder.find_divergence(rates, [0.9, *flat[1:]]) == lr_finder.find_divergence(rates, flat), "an easy first batch says nothing"
    falling = [3 - i / 60 for i in range(60)]
    assert lr_finder.find_divergence(rates, falling) == rates[-1]


@pytest.mark.parametrize(
    ("suggested", "climbs_from", "customary", "found"), [(1e-6, 1.0, 2e-3, 2e-3), (1e-6, 1e-3, 2e-3, 2e-4), (3e-4, 1.0, 2e-3, 6e-3), (1e-6, 1.0, 0.0, 2e-5)]
)
def test_the_finders_suggestion_has_a_lower_bound_well_below_where_the_loss_climbs(monkeypatch, suggested, climbs_from, customary, found):
    learn = Learner(DataLoaders(*[torch.utils.data.DataLoader([(torch.zeros(2), 0)])] * 2), torch.nn.Linear(2, 2), torch.nn.functional.cross_entropy)
    learn.recorder.lrs = [1e-5 * 10 ** (i / 12) for i in range(61)]
    learn.recorder.losses = [torch.tensor(1.0 if rate < climbs_from * 0.999 else 9.0) for rate in learn.recorder.lrs]
    monkeypatch.setattr(Learner, "lr_find", lambda self, **asked: SimpleNamespace(minimum=suggested), raising=False)
    curve = lr_finder.find_rate(learn, "upper stages", 1, lr_finder.RateRule(scale=20.0, customary=customary), lambda event: None)
    assert curve.suggestion == pytest.approx(found, rel=0.25)
    assert curve.suggestion <= lr_finder.HIGHEST_RATE


def test_the_head_of_a_depth_starts_from_some_of_the_images(folder, monkeypatch):
    monkeypatch.setattr(activations, "HEAD_IMAGES", 10)
    task, chosen = resolved(folder, "depth", depth="2", views=2)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        parts = stages.split_at(session.learn.model[0], chosen.arch, 2, 32)
        kept = features.extract(parts.lower, session, chosen)
        made = activations.compute_features(kept, parts, lambda event: None)
        count = len(session.table.part("train"))
        every = parts.upper(build.to_network_input(kept.train[torch.arange(count)])).detach()
    assert len(made.train) == 10 < count and len(made.valid) == len(session.table.part("valid")) == made.cost.images - 10
    nearest = torch.cdist(made.train[torch.arange(10)], every).min(dim=1)
    assert nearest.values.max() < 1e-2 and len(set(nearest.indices.tolist())) > 5, "they are the plain view of images all over"
    assert torch.equal(kept.train.labels[nearest.indices], made.train.labels)


# Choosing


def test_minutes_choose_what_fits_and_say_so(cli, folder):
    quick = cli("train", folder, *TINY, "--minutes", 5, "--epochs", 2, "--json")
    result = quick.json
    chosen = [choice for choice in result["plan"] if choice["chosen"]]
    assert [choice["depth"] for choice in result["plan"]] == ["0", "1", "2", "3", "4", "all"] and len(chosen) == 1
    assert "what each depth would take" in quick.err
    assert chosen[0]["depth"] == "all" and result["settings"]["strategy"] == "full" and chosen[0]["epochs"] == 2 == result["settings"]["epochs"]
    assert json.loads(Path(result["folder"], "run.json").read_text(encoding="utf-8"))["plan"] == result["plan"]
    assert cli("train", folder, *TINY, "--minutes", 5, "--epochs", 2).out.count("were predicted)") == 1
    assert json.loads(Path(result["folder"], "run.json").read_text(encoding="utf-8"))["asked"] == {"depth": "auto", "minutes": 5.0}
    again = cli("train", "--config", f"{result['folder']}/run.json", "--json").json
    assert again["evaluation"] == result["evaluation"] and not again["plan"], "what was chosen is enough to repeat the run"


def test_too_few_minutes_train_the_classifier_and_say_so(cli, folder):
    outcome = cli("train", folder, *TINY, "--minutes", 0.1, "--limit", 8)
    assert outcome.code == 0
    if "no depth ends within" in outcome.err:  # a machine quick enough would fit something into six seconds
        assert "the classifier alone takes" in outcome.err


@pytest.mark.parametrize(("minutes", "epochs"), [(500, 2), (0.1, 1)])
def test_minutes_beside_a_depth_choose_views_and_epochs_only(folder, monkeypatch, minutes, epochs):
    monkeypatch.setattr(planner, "time_depths", lambda *given: types.Timings([timing("0", 1e-5), timing("2", 0.1, 0.2), timing("all", 0.2)], 1e-4, 1e-5))
    task, chosen = resolved(folder, "depth", depth="2", minutes=minutes, epochs=2)
    said = []
    with trainer.prepare(task, chosen, said.append) as session:
        settled, plan = planner.settle_depth(session, chosen)
    assert settled.depth == "2" and settled.epochs == epochs and [choice.depth for choice in plan if choice.chosen] == ["2"]
    notes = [
        event.note
        for event in said
        if isinstance(event, Note) and event.note.startswith("--depth 2 does not end within 0.1 minutes; one epoch of --depth 2 takes")
    ]
    assert len(notes) == (minutes < 1)


def test_epochs_that_were_settled_stay_so_after_an_interruption():
    journal, curve = Journal(), RateCurve([], [], 1e-3, step=0.01)

    def epochs(ending, found=curve):
        return phase._adjust_epochs(phase.PhasePlan("upper stages", 5, contextlib.nullcontext, epochs_in_time=ending), found, lambda event: None, journal)

    assert epochs(lambda step: 9, None) == 5, "without a finder the plan stands"
    assert epochs(lambda step: round(0.03 / step)) == 3
    assert epochs(lambda step: 9) == 3


@pytest.mark.parametrize(("until", "rounds"), [(0.0, 1), (float("inf"), profiler.ROUNDS)])
def test_no_round_of_timing_begins_too_late(until, rounds):
    said, drawn = [], iter(range(100))
    assert profiler._run_in_turns({"one": lambda: [float(next(drawn))], "other": lambda: [5.0, 7.0]}, until, said.append) == {"one": rounds // 2, "other": 6.0}
    assert [event.done for event in said] == [*range(2 * rounds), 2 * profiler.ROUNDS] and next(drawn) == rounds


def test_what_was_predicted_is_said_with_its_epochs():
    choice, chosen = DepthPlan("2", "", 100.0, 0.0, 2, 9, 60.0), resolve.resolve_settings(tasks.get_task("fer"), None, {"depth": "2", "epochs": 7})
    assert formatting._format_predicted(choice, chosen) == "60.0 were predicted for 9 epochs"
    assert formatting._format_predicted(choice, replace(chosen, epochs=9)) == "60.0 were predicted"


def test_a_plan_without_training_shows_the_depths_once(cli, folder):
    for more in ([], ["--quiet"]):
        assert cli("train", folder, *TINY, "--depth", "auto", "--dry-run", *more).err.count("what each depth would take") == 1


def test_timings_that_contradict_each_other_are_told_of():
    said = []
    steady = [DepthPlan(depth, "", speed, 0.0, 1, 8, 60.0) for depth, speed in (("0", 9e4), ("1", 900.0), ("2", 1000.0), ("all", 300.0))]
    planner._warn_of_noise(steady, said.append)
    assert not said
    planner._warn_of_noise([*steady[:2], replace(steady[2], images_per_second=1200.0), steady[3]], said.append)
    assert [event.note for event in said if isinstance(event, Note)] == [
        "the timings contradict each other (depth 1 900 images/s, depth 2 1,200): if other work is running, the plan is worth little"
    ]


def timing(depth, step, lower=0.0):
    return types.Timing(depth, "", step, lower, 0.001, [11_000, *[10_000] * 7])


WORK = types.Work(10_000, 1_000, types.Timings([timing("all", 0.008)], augment=0.0002, head=0.00005), gone=10.0)


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
    outcome = cli("train", folder, *TINY, "--lr", "auto", "--depth", depth, "--minutes", 3, "--epochs", 2, "--freeze-epochs", 0, "--json")
    result = outcome.json
    assert result["settings"]["depth"] == ("" if depth == "auto" else "2"), "it is all layers that the time suffices for, by the plan"
    assert result["settings"]["epochs"] == epochs == len(result["phases"][-1]["epochs"])
    assert f"{epochs} epochs in place of {3 - epochs}: so many end in time, at" in outcome.err


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


def test_predictions_grow_with_the_work():
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"depth": "auto"})

    def predict(step=0.003, **changes):
        return planner._predict_plan(timing("3", step, 0.001), WORK, replace(chosen, **changes)).seconds

    assert predict(epochs=9) - predict(epochs=8) == pytest.approx(10_000 * 0.003 + 1_000 * 0.001)
    assert predict(views=5) - predict(views=4) == pytest.approx(10_000 * (0.001 + 0.0002))
    assert predict(lr="1e-3") < predict()


def test_comparing_depths(cli, folder):
    outcome = cli("compare", folder, *TINY, "--depths", "--epochs", 1, "--freeze-epochs", 1, "--views", 1, "--json")
    names = [arm["name"] for arm in outcome.json["arms"]]
    assert names == ["partial", "depth 1", "depth 2", "depth 3", "depth 4", "full"]
    with Path(outcome.json["folder"], "arms.csv").open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert any(file.endswith("seconds.png") for file in outcome.json["files"])
    wrong = cli("compare", folder, *TINY, "--depth", 2)
    assert wrong.code == 2 and "--arms partial,2,4,full" in wrong.err
