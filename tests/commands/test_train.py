"""tlfast train: its command, its run folder, its plan, and how it goes on after an interruption."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.interruption import settings_of, stopping_at, train_way
from tests.helpers.training import resolved
from tlfast import tasks
from tlfast.commands import train
from tlfast.core import files, runs, settings
from tlfast.core import journal as journal_module
from tlfast.core.errors import Interrupted, UsageError, WeightsError
from tlfast.core.events import Progress
from tlfast.evaluation import bootstrap
from tlfast.models import build
from tlfast.testing import draw_image
from tlfast.training import loaders, planner
from tlfast.training.callbacks import progress
from tlfast.training.types import DepthPlan


def test_unwritable_out_is_said_before_training(cli, folder, tmp_path):
    (tmp_path / "file").touch()
    outcome = cli("train", folder, *TINY, "--out", tmp_path / "file" / "below")
    assert outcome.code == 1 and "cannot write to" in outcome.err and "--out" in outcome.err


def test_dry_run_trains_nothing(cli, folder, tmp_path):
    outcome = cli("train", folder, *TINY, "--full", "--dry-run", "--json")
    assert outcome.code == 0
    plan = outcome.json
    assert plan["settings"]["strategy"] == "full" and plan["weights"] == "none (random initialisation)"
    assert plan["data"]["counts"]["train"]["red"] == 10 and plan["parameters"] > 0
    assert not (tmp_path / "exports").exists()
    assert "trained parameters" in cli("train", folder, *TINY, "--dry-run").out


def test_settings_without_effect_are_named(cli, folder):
    outcome = cli("train", folder, *TINY, "--ema", "--accumulate", 2, "--dry-run")
    assert outcome.code == 0 and "without effect here: --accumulate, --ema" in outcome.err
    assert "without effect" not in cli("train", folder, *TINY, "--ema", "--full", "--dry-run").err


def test_settings_without_effect_at_the_chosen_depth_are_named(cli, folder, monkeypatch):
    chosen = DepthPlan("0", "the classifier", 100.0, 0.0, 2, 3, 10.0, chosen=True)
    monkeypatch.setattr(planner, "plan_depths", lambda session, settings: ([chosen], None))
    outcome = cli("train", folder, *TINY, "--depth", "auto", "--ema", "--freeze-epochs", 2, "--dry-run")
    assert outcome.code == 0 and "without effect here: --freeze-epochs, --ema" in outcome.err


def test_config_file_and_flags(cli, folder, tmp_path):
    (tmp_path / "mine.toml").write_text('strategy = "full"\narch = "test_resnet"\nweights = "none"\nsize = 48\nepochs = 3\n')
    plan = cli("train", folder, "--config", "mine.toml", "--epochs", 5, "--dry-run", "--json").json["settings"]
    assert (plan["strategy"], plan["size"], plan["epochs"]) == ("full", 48, 5)


def test_train_then_list(cli, folder):
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--json", "--name", "mine", "--no-onnx")
    assert outcome.code == 0 and outcome.json["run"] == "mine"
    listed = cli("runs", "--json").json
    assert [(row["run"], row["task"], row["accuracy"]) for row in listed] == [("mine", "pictures", outcome.json["evaluation"]["accuracy"])]
    again = cli("train", folder, *TINY, "--name", "mine")
    assert again.code == 2 and "a run named 'mine' exists already" in again.err


def test_deepweeds_shaped_folder_trains_a_resnet50_on_the_official_fold(cli, tmp_path):
    """The whole command of the study, on drawn images: nine classes, five folds of 27 train, 9 val and 9 test images."""
    root = tmp_path / "deepweeds"
    parts = {"train": range(3), "val": range(3, 4), "test": range(4, 5)}
    (root / "labels").mkdir(parents=True)
    names = {}
    for label in range(9):
        for n in range(5):
            names[label, n] = f"201709{10 + n}-10{label:02d}00-{n}.jpg"
            draw_image(root / "images" / names[label, n], (25 * label, 200, 255 - 25 * label), n)
    for fold in range(5):
        for part, numbers in parts.items():
            lines = [f"{names[label, (n + fold) % 5]},{label}" for label in range(9) for n in numbers]
            (root / "labels" / f"{part}_subset{fold}.csv").write_text("\n".join(["Filename,Label", *lines]) + "\n")
    small = ["--limit", 200, "--epochs", 1, "--freeze-epochs", 1, "--size", 32]
    typed = ["train", "weeds", "--full", "--weights", "none", *small, "--fold", 2, "--data", root, "--amp", "off"]
    outcome = cli(*typed, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["data"]["classes"] == list(tasks.get_task("weeds").classes)
    used = {"train": set(), "valid": set(), "test": set()}
    for row in csv.DictReader((Path(outcome.json["folder"]) / "images.csv").read_text().splitlines()):
        used[row["split"]].add(Path(row["path"]).name)
    for part, split in (("train", "train"), ("val", "valid"), ("test", "test")):
        official = list(csv.DictReader((root / "labels" / f"{part}_subset2.csv").read_text().splitlines()))
        assert used[split] == {row["Filename"] for row in official}
    answer = cli("interpret", "weeds", "--json", "--k", 9, "--split", "test").json
    assert {Path(item["path"]).name for item in answer["top_losses"]} == used["test"]


def test_skipped_images_are_named(cli, folder):
    (folder / "red" / "0.png").write_text("no image")
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--no-onnx")
    assert outcome.code == 0 and f"skipped {folder / 'red' / '0.png'}: not an image that can be read" in outcome.err


@pytest.fixture
def stopped(cli, pictures, monkeypatch):
    """A training by command that was stopped in its second epoch."""
    watch = progress.ProgressCallback.after_batch

    def stop(self):
        watch(self)
        if self.training and self.step == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_batch", stop)
        outcome = cli("train", pictures, *TINY, "--epochs", 3, "--train-bn", "--name", "mine", "--no-onnx")
    assert outcome.code == 130
    assert f"tlfast train {pictures} --resume mine" in outcome.err.replace("\n", " ")
    return outcome


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "mine"], ["--resume", "--partial", "--epochs", 3, "--bs", 8, "--quiet"]])
def test_the_command_that_goes_on(cli, pictures, stopped, words):
    outcome = cli("train", pictures, *words, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["run"] == "mine" and outcome.json["settings"]["train_bn"] is True
    with open(Path(outcome.json["folder"]) / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    again = cli("train", pictures, "--resume")
    assert again.code == 2 and "no interrupted training of pictures in exports" in again.err and "Leave out --resume" in again.err


@pytest.mark.parametrize("words", [["--resume"], ["--resume", "mine"]])
def test_a_resumed_training_needs_no_task(cli, stopped, words):
    outcome = cli("train", *words, "--json")
    assert outcome.code == 0 and outcome.json["run"] == "mine", outcome.err


@pytest.mark.parametrize("words", [["--out=~/exports"], ["--out", "~/exports"]])
def test_the_home_folder_in_the_folder_of_a_training_to_resume(cli, pictures, stopped, words, monkeypatch):
    monkeypatch.setenv("HOME", os.getcwd())
    for command in (["train", *words], ["train", pictures, *words]):
        shutil.copytree("exports", "saved", dirs_exist_ok=True)
        outcome = cli(*command, "--resume", "--json", "--no-onnx")
        assert outcome.code == 0 and outcome.json["run"] == "mine", outcome.err
        shutil.rmtree("exports")
        Path("saved").rename("exports")


def test_a_training_by_a_run_json_is_resumed(cli, pictures, tmp_path, monkeypatch):
    first = cli("train", pictures, *TINY, "--epochs", 1, "--train-bn", "--name", "first", "--no-onnx", "--json").json
    watch = progress.ProgressCallback.after_batch

    def stop(self):
        watch(self)
        if self.training and self.step == 2:
            signal.raise_signal(signal.SIGINT)

    command = ["train", "--config", Path(first["folder"]) / "run.json", "--name", "again"]
    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_batch", stop)
        assert cli(*command).code == 130
    outcome = cli(*command, "--resume", "--json")
    assert outcome.code == 0 and outcome.json["run"] == "again", outcome.err


def test_the_newest_training_that_is_not_running_is_resumed(cli, pictures, stopped):
    running = Path("exports/pictures/other.unfinished")
    shutil.copytree("exports/pictures/mine.unfinished", running)
    with files.lock_file(running / "lock", OSError("taken")):
        os.utime(running / "journal.json")
        outcome = cli("train", "--resume", "--json")
    assert outcome.code == 0 and outcome.json["run"] == "mine", outcome.err


def test_a_training_to_resume_that_is_not_there(cli, stopped):
    outcome = cli("train", "--resume", "other")
    assert outcome.code == 2 and "--resume other: no interrupted training of that name in exports" in outcome.err
    shutil.copytree("exports/pictures", "exports/photos")
    outcome = cli("train", "--resume", "mine")
    assert outcome.code == 2 and "2 interrupted trainings have that name, of photos, pictures" in outcome.err and "tlfast runs --interrupted" in outcome.err
    outcome = cli("train", "--resume", "--out", "elsewhere")
    assert outcome.code == 2 and "no interrupted training in elsewhere" in outcome.err


def test_groups_get_an_interval_of_their_own(cli, pictures, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "MIN_GROUPS", 2)
        words = ["train", pictures, *TINY, "--epochs", 1, "--no-onnx", "--group-by", r"\d(?=\.png)", "--name", "grouped"]
        outcome = cli(*words)
        assert outcome.code == 0 and re.search(r"accuracy over groups +0\.\d{4} to \d\.\d{4} \(\d groups\)", outcome.out), outcome.out
        page = Path(cli("report", "grouped", "--json").json["files"][0]).read_text()
        assert re.search(r"These images are \d groups, .* For new groups the 95 % interval of accuracy is 0\.\d{3} to", page)
        assert "accuracy over groups" in cli("evaluate", "grouped").out
    assert re.search(r"accuracy over groups +\d groups are too few", cli("evaluate", "grouped").out)


def test_other_settings_than_it_began_with_are_refused(cli, pictures, stopped):
    outcome = cli("train", pictures, "--epochs", 4, "--resume")
    assert outcome.code == 2 and "--epochs 4: the interrupted training began with 3" in outcome.err
    assert cli("train", pictures, "--full", "--resume").code == 2
    outcome = cli("train", pictures, "--bs", "auto", "--resume")
    assert outcome.code == 2 and "--bs auto: the interrupted training began with 8" in outcome.err
    outcome = cli("train", pictures, "--resume", "other")
    assert outcome.code == 2 and "--resume other: no interrupted training of that name" in outcome.err and "Interrupted trainings: mine" in outcome.err


def test_other_images_than_it_began_with_are_refused(cli, folder, monkeypatch):
    after_train = progress.ProgressCallback.after_train
    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_train", lambda self: (after_train(self), signal.raise_signal(signal.SIGINT)))
        assert cli("train", folder, *TINY, "--epochs", 3).code == 130
    (folder / "red" / "0.png").unlink()
    outcome = cli("train", folder, "--resume")
    assert outcome.code == 1 and "the images differ from those of the interrupted training" in outcome.err
    assert cli("train", folder, "--resume", "--json").code == 1  # and it is still there
    assert cli("train", folder, *TINY, "--epochs", 1, "--no-onnx").code == 0  # a training anew is none of its business


def test_moved_images_of_an_interrupted_training(cli, folder, monkeypatch):
    after_train = progress.ProgressCallback.after_train
    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "after_train", lambda self: (after_train(self), signal.raise_signal(signal.SIGINT)))
        assert cli("train", folder, *TINY, "--epochs", 3, "--train-bn", "--name", "mine", "--no-onnx").code == 130
    shutil.move(folder, folder.with_name("elsewhere"))
    outcome = cli("train", "--resume")
    assert outcome.code == 2 and f"--resume: the images of mine, {folder}, are missing" in outcome.err


def test_two_cannot_go_on_with_the_same(cli, pictures, stopped):
    folder = journal_module.find("exports", "pictures", "mine")
    with journal_module._lock(folder):
        outcome = cli("train", pictures, "--resume")
    assert outcome.code == 1 and "is being trained by another process" in outcome.err and folder.is_dir()


def test_what_was_interrupted_is_told_of_and_keeps_its_name(cli, pictures, stopped):
    refused = cli("train", pictures, *TINY, "--epochs", 1, "--name", "mine")
    assert refused.code == 2 and "a training named 'mine' is unfinished" in refused.err and "--resume mine" in refused.err
    other = cli("train", pictures, *TINY, "--epochs", 1, "--no-onnx")
    assert other.code == 0 and "mine was interrupted: --resume mine continues it; this is a new training" in other.err
    assert [journal_module.run_id_of(folder) for folder in journal_module.list_interrupted_folders("exports", "pictures")] == ["mine"]
    with journal_module._lock(journal_module.find("exports", "pictures", "mine")):
        assert journal_module.list_interrupted_folders("exports", "pictures") == []


def test_run_folder_holds_everything(make, folder):
    events = []
    result = make("full", lr="auto", onnx=True, on_event=events.append)
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


def test_the_plan_of_an_interrupted_training_is_not_made_again(pictures, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        train_way("depth", pictures, tmp_path, stopping_at("head", 1), depth="auto")
    (left,) = tmp_path.glob("*/*.unfinished")
    monkeypatch.setattr(planner, "plan_depths", lambda *given: pytest.fail("planned again"))
    planned = train.plan_run(tasks.folder_task(pictures), settings_of("depth", pictures, tmp_path, depth="auto"), resume=journal_module.run_id_of(left))
    assert any(depth.chosen for depth in planned.depths)


def test_images_of_a_run_can_be_trained_on_again(make, folder, tmp_path):
    first = make("partial", seed=4)
    again = make("partial", seed=4, data=str(tmp_path / "out" / "pictures" / first.run / "images.csv"))
    assert again.evaluation == first.evaluation and again.data.counts == first.data.counts


def test_a_refused_training_leaves_nothing_behind(folder, tmp_path):
    task, chosen = resolved(folder, "partial", out=str(tmp_path / "new" / "exports"), weights=str(tmp_path / "none.pth"))
    with pytest.raises(UsageError):
        train.train_run(task, chosen)
    assert not (tmp_path / "new" / "exports").exists()


def test_a_tilde_in_out_is_the_home_folder(cli, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--views", 1, "--no-onnx", "--name", "r", "--out=~/runs")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "home" / "runs" / "pictures" / "r" / "run.json").is_file() and not (tmp_path / "~").exists()
    assert cli("evaluate", "r", "--out=~/runs").code == 0


def test_an_image_that_is_removed_meanwhile_is_named(cli, folder, monkeypatch):
    open_pil = loaders._open_pil
    monkeypatch.setattr(loaders, "_open_pil", lambda path: (shutil.rmtree(folder, ignore_errors=True), open_pil(path))[1])
    outcome = cli("train", folder, *TINY, "--full", "--epochs", 1, "--freeze-epochs", 1, "--no-onnx", "--store", "off")
    assert outcome.code == 1 and ".png cannot be read" in outcome.err and "--resume" in outcome.err


def test_a_note_counts_labels_of_the_file_that_are_not_those_of_the_evaluation(cli, folder, monkeypatch):
    check = train.onnx.check_onnx

    def check_others(path, model, preprocessing, evaluated, *rest):
        return check(path, model, preprocessing, {image: label + (number < 2) for number, (image, label) in enumerate(evaluated.items())}, *rest)

    monkeypatch.setattr(train.onnx, "check_onnx", check_others)
    outcome = cli("train", folder, *TINY, "--epochs", 1, "--name", "r")
    assert outcome.code == 0 and "gives another label than the evaluation to 2 of 6 images" in outcome.err
    assert runs.find("r").manifest["onnx"]["changed"] == 2
