from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.training import TINY, resolved, weights_before_and_after
from tlfast import tasks
from tlfast.commands import train
from tlfast.core import runs, settings
from tlfast.core.errors import UsageError, WeightsError
from tlfast.core.events import Note, Progress
from tlfast.export.weights import load_model
from tlfast.models import build
from tlfast.tasks import resolve
from tlfast.training import head, lr_finder, trainer
from tlfast.training import phase as phase_module
from tlfast.training.callbacks import progress
from tlfast.training.strategies import get_strategy


@pytest.fixture
def make(folder, tmp_path):
    """Train on the drawn folder with a tiny network: `make("full", seed=1)`."""

    def run(strategy="partial", on_event=lambda event: None, **flags):
        task = tasks.folder_task(folder)
        chosen = resolve.resolve_settings(task, strategy, {**TINY, "data": str(folder), "out": str(tmp_path / "out"), **flags})
        return train.train_run(task, chosen, on_event)

    return run


def test_partial_changes_no_weight_and_no_batchnorm_statistic_of_the_backbone(folder):
    changed, body, head = weights_before_and_after(folder, "partial")
    assert any("running_mean" in name for name in body)
    assert not changed & body
    assert {name for name in head if name.endswith("weight")} <= changed


def test_full_changes_all_of_it(folder):
    changed, body, head = weights_before_and_after(folder, "full", freeze_epochs=0)
    assert {name for name in body | head if name.endswith(("weight", "running_mean"))} <= changed


def test_full_moves_the_lowest_layers_slowest(folder, monkeypatch):
    seen = []
    original = progress.ProgressCallback.after_batch

    def spy(self):
        if self.phase == "all layers" and self.training:
            seen.append([group["lr"] for group in self.opt.hypers])
        original(self)

    monkeypatch.setattr(progress.ProgressCallback, "after_batch", spy)
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        trainer.fit(session, chosen)
    assert seen and all(len(rates) >= 3 and rates == sorted(rates) and rates[0] < rates[-1] for rates in seen)


def test_run_folder_holds_everything(make, folder):
    events = []
    result = make("full", lr="auto", on_event=events.append)
    folder_of_run = runs.find(result.folder).folder
    names = {path.relative_to(folder_of_run).as_posix() for path in folder_of_run.rglob("*") if path.is_file()}
    curves = {f"plots/lr-find-{phase}.{kind}" for phase in ("head", "all-layers") for kind in ("png", "json")}
    records = {"run.json", "run.json.sha256", "images.csv", "history.csv", "metrics.json", "predictions.parquet", "plots/calibration.png"}
    assert names == records | {"model.safetensors", "model.onnx", "learner.pkl"} | curves
    manifest = json.loads((folder_of_run / "run.json").read_text())
    assert manifest["classes"] == ["blue", "green", "red"]
    assert {p["name"]: p["lr"] for p in manifest["phases"]} == {p.name: p.lr for p in result.phases}
    assert manifest["weights"]["source"] == "none (random initialisation)" and len(manifest["weights"]["sha256"]) == 64
    assert manifest["versions"]["fastai"] and manifest["data"]["fingerprint"]
    history = list(csv.DictReader((folder_of_run / "history.csv").read_text().splitlines()))
    assert [(row["phase"], row["epoch"]) for row in history] == [("head", "1"), ("all layers", "1"), ("all layers", "2")]
    assert json.loads((folder_of_run / "metrics.json").read_text())["accuracy"] == result.evaluation.accuracy
    assert {"storing images", "backbone: features", "head", "all layers", "evaluating"} <= {event.phase for event in events}
    assert all(event.done <= event.total for event in events if isinstance(event, Progress))


def test_best_epoch_is_what_is_kept(make):
    result = make("full", epochs=4)
    phase = result.phases[-1]
    best = phase.epochs[phase.best_epoch - 1]
    assert best.accuracy == max(row.accuracy for row in phase.epochs)
    assert result.evaluation.accuracy == pytest.approx(best.accuracy, abs=1e-6)


def test_patience_ends_a_phase_early(make):
    phase = make("partial", epochs=60, patience=2, lr="1e-9").phases[0]
    assert len(phase.epochs) == phase.best_epoch + 2 < 60


def test_the_metric_decides(make):
    phase = make("partial", epochs=5, metric="valid_loss").phases[0]
    assert phase.epochs[phase.best_epoch - 1].valid_loss == min(row.valid_loss for row in phase.epochs)


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_same_seed_same_metrics_other_seed_others(make, strategy):
    def key(seed):
        result = make(strategy, seed=seed, lr="auto")
        weights = Path(result.folder, "model.safetensors").read_bytes()
        return weights, result.evaluation, [(row.train_loss, row.valid_loss) for phase in result.phases for row in phase.epochs], [p.lr for p in result.phases]

    first = key(1)
    assert key(1) == first
    assert key(2) != first


def test_exported_model_is_the_trained_one(make):
    result = make("full")
    model = load_model(runs.find(result.folder))
    assert torch.isfinite(model(torch.zeros(1, 3, 32, 32))).all()
    with trainer.prepare(*resolved(Path(result.data.source), "full"), lambda event: None) as session:
        assert model.state_dict().keys() == session.learn.model.state_dict().keys()


@pytest.mark.parametrize(
    "flags",
    [
        {"class_weights": "balanced"},
        {"label_smoothing": 0.1},
        {"mixup": 0.4},
        {"augment": "strong"},
        {"freeze_epochs": 0},
        {"accumulate": 3},
        {"sizes": "16,24"},
        {"ema": True},
        {"amp": "bf16"},
        {"amp": "auto"},
    ],
)
def test_every_way_to_train_runs(make, flags):
    result = make("full", epochs=1, **flags)
    assert 0 <= result.evaluation.accuracy <= 1
    assert [p.name for p in result.phases] == (["all layers"] if "freeze_epochs" in flags else ["head", "all layers"])


def test_the_finder_takes_no_more_steps_than_the_phase():
    assert [lr_finder.count_finder_steps(n) for n in (1, 20, 40, 5000)] == [20, 20, 40, 60]


def test_balanced_class_weights_are_scikit_learns():
    assert phase_module.balance_classes([0, 0, 0, 1], 2).tolist() == pytest.approx([4 / 6, 2.0])


def test_unreachable_hub_is_said_before_training(folder, tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.delenv("TLFAST_WEIGHTS", raising=False)
    monkeypatch.setattr(build, "_check_reachable", unreachable)
    task, chosen = resolved(folder, "partial", arch="resnet18", weights="auto", out=str(tmp_path / "out"))
    with pytest.raises(WeightsError) as error:
        train.train_run(task, chosen)
    assert error.value.message == "no weights for 'resnet18': the hub cannot be reached (no route to host)"
    assert "--weights FILE" in error.value.hint and "TLFAST_WEIGHTS" in error.value.hint and "tf_efficientnet_lite0" in error.value.hint
    assert not list((tmp_path / "out").rglob("run.json"))


def test_plan_counts_what_trains(folder):
    plans = {strategy: train.plan_run(*resolved(folder, strategy)) for strategy in settings.STRATEGIES}
    head = sum(p.numel() for p in build.build_model("test_resnet", 3, 32)[1].parameters())
    assert plans["partial"].trained_parameters == head
    assert plans["full"].trained_parameters == plans["full"].parameters == plans["partial"].parameters > head


def test_batchnorm_is_adapted_to_the_training_images_and_nothing_else_changes(folder):
    task, chosen = resolved(folder, "full", augment="none", bs=30)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        before = {name: value.clone() for name, value in body.state_dict().items()}
        head.adapt_batchnorm(body, session.learn.dls.train, chosen, lambda event: None)
        after = body.state_dict()
        changed = {name.rsplit(".", 1)[1] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"running_mean", "running_var", "num_batches_tracked"}
        x, _ = next(iter(session.learn.dls.train))
        norm = next(module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d))
        inputs = []
        norm.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
        body.eval()(x.as_subclass(torch.Tensor))
        assert norm.momentum == 0.1 and not body.training
        assert torch.allclose(norm.running_mean, inputs[0].mean(dim=(0, 2, 3)), atol=1e-4)


def test_images_of_a_run_can_be_trained_on_again(make, folder, tmp_path):
    first = make("partial", seed=4)
    again = make("partial", seed=4, data=str(tmp_path / "out" / "pictures" / first.run / "images.csv"))
    assert again.evaluation == first.evaluation and again.data.counts == first.data.counts


@pytest.mark.parametrize(("accuracy", "kept"), [(1.1, True), (-0.1, False)])
def test_a_phase_must_beat_the_one_it_starts_from(folder, accuracy, kept):
    task, chosen = resolved(folder, "full", freeze_epochs=1)
    events = []
    with trainer.prepare(task, chosen, events.append) as session:
        plans = list(get_strategy("full").phases(session, chosen))
        head, _ = trainer.fit_within_memory(session, plans[0], chosen, None)
        head = replace(head, epochs=[replace(row, accuracy=accuracy) for row in head.epochs])
        before = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        phase, _ = trainer.fit_within_memory(session, plans[1], chosen, head)
        after = session.learn.model.state_dict()
    assert (phase.best_epoch == 0) == kept == all(torch.equal(before[name], after[name]) for name in before)
    assert any("which is kept. Try more --epochs, or a lower --lr" in event.note for event in events if isinstance(event, Note)) == kept


def test_a_refused_training_leaves_nothing_behind(folder, tmp_path):
    task, chosen = resolved(folder, "partial", out=str(tmp_path / "new" / "exports"), weights=str(tmp_path / "none.pth"))
    with pytest.raises(UsageError):
        train.train_run(task, chosen)
    assert not (tmp_path / "new" / "exports").exists()
