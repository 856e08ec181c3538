from __future__ import annotations

import random
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ShowGraphCallback

import tlfast
from tests.helpers.command_line import invoke
from tlfast.testing import TINY


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class CountBatches(Callback):
    """Counts training batches by phase, and interrupts a training at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        self.batches, self.fits, self.stop_at = 0, 0, stop_at

    def before_fit(self) -> None:
        self.fits += 1

    def after_batch(self) -> None:
        self.batches += self.training
        if self.batches == self.stop_at:
            raise KeyboardInterrupt


def test_train_equals_the_command(pictures):
    run = tlfast.train(pictures, epochs=2, name="python", **TINY)
    outcome = invoke("train", pictures, "--epochs", 2, "--name", "shell", *(f"--{name}={value}" for name, value in TINY.items()))
    assert outcome.code == 0
    assert tlfast.Run("shell").predictions.equals(run.predictions)


def test_notes_name_keywords(pictures, caplog):
    with pytest.raises(tlfast.TlfastError, match="interrupted"):
        tlfast.train(pictures, full=True, name="mine", epochs=1, cbs=[CountBatches(1)], **TINY)
    tlfast.train(pictures, epochs=1, ema=True, **TINY)
    assert "settings: without effect here: ema=True" in caplog.messages
    assert "training: mine was interrupted: resume mine continues it; this is a new training" in caplog.messages


def test_a_run_can_be_repeated_on_other_images(pictures, folder):
    run = tlfast.train(pictures, epochs=2, mixup=0.1, **TINY)
    again = tlfast.train(tlfast.dataset(folder, name="other", valid_pct=0.5), like=run.folder, epochs=1)
    assert (again.settings.mixup, again.settings.arch, again.settings.epochs) == (0.1, "test_resnet", 1)
    assert (again.settings.task, again.settings.valid_pct) == ("other", 0.5)
    with pytest.raises(tlfast.UsageError, match="like and config are both given"):
        tlfast.train(folder, like=run, config=run.folder / "run.json")


def test_config_files_are_those_of_the_command(pictures, tmp_path):
    (tmp_path / "mine.toml").write_text('arch = "test_resnet"\nweights = "none"\nsize = 32\nepochs = 1\nlr = 1e-3\n')
    run = tlfast.train(pictures, config="mine.toml", bs=8)
    assert (run.settings.arch, run.settings.epochs, run.settings.bs) == ("test_resnet", 1, 8)


def test_callbacks_see_every_phase(pictures):
    counter = CountBatches()
    tlfast.train(pictures, full=True, epochs=2, freeze_epochs=1, cbs=[counter], **TINY)
    assert counter.fits == 2
    assert counter.batches >= 3


def test_an_interrupted_training_is_resumed(pictures):
    settings = {"epochs": 3, "checkpoint_minutes": 0, **TINY}
    whole = tlfast.train(pictures, name="whole", **settings)
    with pytest.raises(tlfast.Interrupted) as error:
        tlfast.train(pictures, name="stopped", cbs=[CountBatches(stop_at=8)], **settings)
    assert error.value.hint == "Continue with: tlfast.train(..., resume=True)"
    resumed = tlfast.train(pictures, resume=True)
    assert resumed.id == "stopped"
    assert resumed.predictions.equals(whole.predictions)


def test_the_newest_training_of_the_same_images_is_resumed(pictures, tmp_path):
    first, second = (shutil.copytree(pictures, tmp_path / name / "pics") for name in ("a", "b"))
    for data, name in ((first, "of-a"), (second, "of-b")):
        with pytest.raises(tlfast.Interrupted):
            tlfast.train(data, name=name, epochs=2, checkpoint_minutes=0, cbs=[CountBatches(stop_at=4)], quiet=True, **TINY)
    assert tlfast.train(first, resume=True, quiet=True).id == "of-a"


def test_the_command_that_resumes_a_training_of_a_named_dataset_resumes_it(pictures):
    named = tlfast.dataset(pictures, name="mine")
    settings = {"epochs": 3, "checkpoint_minutes": 0, **TINY}
    with pytest.raises(tlfast.Interrupted):
        tlfast.train(named, name="stopped", cbs=[CountBatches(stop_at=8)], **settings)
    (command,) = tlfast.runs(interrupted=True)["command"]
    outcome = invoke(*shlex.split(command)[1:], "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["folder"] == "exports/mine/stopped"


def test_like_takes_the_reference_of_a_run(pictures):
    first = tlfast.train(pictures, epochs=1, name="first", quiet=True, **{**TINY, "size": 40})
    second = tlfast.train(pictures, like="first", name="second", quiet=True)
    assert second.manifest["settings"]["size"] == first.manifest["settings"]["size"] == 40


def test_no_command_repeats_a_run_that_was_fitted_by_hand(pictures):
    run = tlfast.Run.from_learner(tlfast.learner(pictures, quiet=True, **TINY), quiet=True)
    outcome = invoke("train", "--config", run.folder / "run.json", "--dry-run")
    assert outcome.code == 2 and "fitted by hand in Python" in outcome.err


def test_plan_lists_depths(pictures):
    plan = tlfast.plan(pictures, **{**TINY, "lr": "auto"})
    assert plan.depths["depth"].tolist()[0] == "0"
    assert plan.depths["chosen"].sum() == 1
    assert plan.trained_parameters <= plan.parameters and plan.settings.arch == TINY["arch"]
    assert "images_per_second" in plan._repr_html_()
    assert tlfast.plan(pictures, full=True, **TINY).depths.empty


@pytest.mark.parametrize(("text", "tuning"), [('depth = "2"', "depth 2"), ("full = true", "full"), ('strategy = "partial"', "partial")])
def test_a_plan_follows_its_config_file(pictures, tmp_path, text, tuning):
    (tmp_path / "mine.toml").write_text(text + "\n")
    assert tlfast.plan(pictures, config=tmp_path / "mine.toml", quiet=True, **TINY).settings.strategy_label == tuning


def test_lr_find_returns_the_curve_of_each_phase(pictures, tmp_path):
    curves = tlfast.lr_find(pictures, full=True, freeze_epochs=1, epochs=1, **TINY)
    assert list(curves) == ["head", "all layers"]
    assert curves["head"].suggestion > 0
    assert len(list(tmp_path.glob("exports/pictures/lr-find-*.png"))) == 2


@pytest.mark.parametrize("call", [tlfast.train, tlfast.plan, tlfast.lr_find])
def test_a_call_leaves_the_random_numbers_of_its_caller(pictures, call):
    def seed():
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    seed()
    expected = [draw(), draw()]
    seed()
    drawn = [draw()]
    call(pictures, **TINY)
    assert [*drawn, draw()] == expected


def test_an_error_is_shown_with_its_hint(pictures):
    with pytest.raises(tlfast.UsageError) as error:
        tlfast.train(pictures, resize="stretch")
    assert error.value._render_traceback_()[0].startswith("UsageError: resize='stretch' is not one of")
    assert len(error.value._render_traceback_()) == 2 - (not error.value.hint)


def test_a_callback_that_draws_into_a_bar_needs_the_bar(pictures):
    with pytest.raises(tlfast.UsageError, match="ShowGraphCallback draws into the bar of fastai's ProgressCallback"):
        tlfast.train(pictures, cbs=[ShowGraphCallback], quiet=True, **TINY)


@pytest.mark.parametrize("cbs", [print, [print], "ShowGraphCallback", ShowGraphCallback()])
def test_callbacks_are_a_list_of_fastai_callbacks(pictures, cbs):
    with pytest.raises(tlfast.UsageError, match="is not a list of fastai callbacks"):
        tlfast.train(pictures, cbs=cbs, quiet=True, **TINY)


def test_a_plan_has_at_most_the_given_epochs(pictures):
    plan = tlfast.plan(pictures, epochs=3, quiet=True, **TINY)
    assert set(plan.depths["epochs"]) == {3}


def test_full_is_true_or_false(pictures):
    with pytest.raises(tlfast.UsageError, match="full='no' is neither True nor False"):
        tlfast.plan(pictures, full="no", quiet=True, **TINY)


def test_wrong_types_of_like_and_config(pictures):
    with pytest.raises(tlfast.UsageError, match="like=3 is neither a run nor the reference of one"):
        tlfast.train(pictures, like=3, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(tlfast.UsageError, match="config=3 is not a text"):
        tlfast.train(pictures, config=3, quiet=True)  # type: ignore[arg-type]


def test_a_frame_with_columns_of_other_names(pictures):
    paths = sorted(map(str, pictures.rglob("*.png")))
    frame = pd.DataFrame({"file": paths, "species": [path.split("/")[-2] for path in paths], "part": ["valid", "train", "train"] * 12})
    run = tlfast.train(frame, path_col="file", label_col="species", split_col="part", out="here", **{**TINY, "epochs": 1})
    assert run.folder.is_relative_to(Path("here/table").resolve()) and len(run.predictions) == 12
    assert not Path("exports").exists()


def test_a_config_of_another_task(run):
    with pytest.raises(tlfast.UsageError, match="is for the task pictures, not for digits") as error:
        tlfast.plan("digits", config=run.folder / "run.json")
    assert error.value.hint == "Name the task pictures, or give the settings in a TOML file"
