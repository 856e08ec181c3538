"""Teachers: their probabilities, the images on which they are computed, and the trainings that learn from them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tlfast
from tests.helpers.interruption import settings_of, stopping_at, train_way
from tests.helpers.training import TINY, resolved
from tlfast import tasks
from tlfast.commands import train
from tlfast.core import runs
from tlfast.core.errors import Interrupted, RunError, UsageError
from tlfast.core.events import Note, Progress
from tlfast.core.files import write_json
from tlfast.export.weights import load_model
from tlfast.training import distillation, experiments, features, trainer
from tlfast.training.callbacks.distillation import soften


@pytest.fixture
def teacher(trained_run):
    """The full run on drawn images, whose network has 32 px."""
    return str(trained_run.full)


def opened(folder, strategy, **flags):
    task, chosen = resolved(folder, strategy, **flags)
    return trainer.prepare(task, chosen, lambda event: None), chosen


def softened(session, chosen):
    """Return the targets of all items, as the loaders give them for a batch."""
    found = distillation.compute_targets(session, chosen)
    return soften(found[torch.arange(len(found))])


def changed_copy(run, folder, **manifest):
    """Copy a run and change entries of its manifest, which is then not sealed any more."""
    shutil.copytree(run, folder)
    write_json(folder / "run.json", {**runs.read_run(folder).manifest, **manifest, "files": {}})
    return folder


def test_features_and_targets_are_those_of_the_same_views(folder, tmp_path):
    """The teacher has the frozen backbone of the student: its head gives the targets from the student's features."""
    made = train.train_run(*resolved(folder, "partial", out=str(tmp_path / "out"), onnx=False))
    session_of, chosen = opened(folder, "partial", views=3, teacher=made.folder)
    head = load_model(runs.read_run(runs.find(made.folder).folder))[1]
    with session_of as session:
        found = features.extract(session.learn.model[0], session, chosen).train
        soft = softened(session, chosen)
        with torch.inference_mode():
            expected = soften(head(found[torch.arange(len(found))]).log_softmax(dim=1))
    assert len(soft) == 3 * found.images and torch.allclose(soft, expected, atol=5e-3)
    assert not torch.allclose(soft[: found.images], soft[found.images : 2 * found.images], atol=5e-3)


def test_mixup_mixes_the_targets_of_the_teacher(folder, teacher):
    """A teacher's probability of an image is linear in the share of the image in a mixture."""
    session_of, chosen = opened(folder, "partial", epochs=1, lr="1e-3", mixup=1.0, teacher=teacher)
    with session_of as session:
        seen = []

        class Look(trainer.Callback):
            order = 6
            run_valid = False

            def before_batch(self):
                mixup = next(callback for callback in self.learn.cbs if type(callback).__name__ == "MixUp")
                seen.append((mixup.lam.view(-1, 1), self.learn.distillation.soft, self.x))

        session = replace(session, callbacks=[Look()])
        found = features.extract(session.learn.model[0], session, chosen).train
        x, soft = found[torch.arange(len(found))], softened(session, chosen)
        trainer.fit(session, chosen)
    for shares, mixed, inputs in seen:
        assert torch.allclose(mixed.sum(dim=1), torch.ones(len(mixed)), atol=1e-3)
        for share, target, given in zip(shares, mixed, inputs, strict=True):
            pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if torch.allclose(torch.lerp(x[j], x[i], share), given, atol=1e-3)]
            assert any(torch.allclose(torch.lerp(soft[j], soft[i], share), target, atol=2e-3) for i, j in pairs)


def test_the_loss_is_the_mean_of_both(folder, teacher):
    session_of, chosen = opened(folder, "full", freeze_epochs=0, epochs=1, lr="1e-3", teacher=teacher, label_smoothing=0.1, amp="off")
    with session_of as session:
        learn = session.learn
        losses = []

        class Look(trainer.Callback):
            order = 6
            run_valid = False

            def after_loss(self):
                usual = self.learn.loss_func(self.pred, *self.yb)
                with torch.no_grad():
                    soft = (session.teacher(self.x) / 2).softmax(dim=1)
                logs = (self.pred / 2).log_softmax(dim=1)
                losses.append((self.loss.item(), (usual / 2 - (soft * logs).sum(dim=1).mean() * 4 / 2).item()))

        learn.add_cb(Look())
        trainer.fit(session, chosen)
    assert losses and np.allclose(*zip(*losses, strict=True), rtol=1e-4)


@pytest.mark.parametrize("way", ["partial", "head and BatchNorm", "depth", "full", "full with everything"])
def test_every_way_of_training_learns_from_a_teacher_and_resumes(way, folder, teacher, tmp_path):
    plain, taught = (train_way(way, folder, tmp_path / name, lr="3e-3", **flags) for name, flags in (("plain", {}), ("taught", {"teacher": teacher})))
    assert plain.phases[-1].epochs[0].train_loss != taught.phases[-1].epochs[0].train_loss
    recorded = runs.read_run(runs.find(taught.folder).folder).manifest["teacher"]
    assert recorded["runs"] == [runs.read_run(Path(teacher)).id] and len(recorded["sha256"]) == 64
    phase = taught.phases[-1].name
    with pytest.raises(Interrupted):
        train_way(way, folder, tmp_path / "cut", stopping_at(phase, 1), lr="3e-3", teacher=teacher)
    (left,) = (tmp_path / "cut").glob("*/*.unfinished")
    resumed = train.train_run(
        tasks.folder_task(folder), settings_of(way, folder, tmp_path / "cut", lr="3e-3", teacher=teacher), resume=left.name.removesuffix(".unfinished")
    )
    assert [row.train_loss for row in resumed.phases[-1].epochs] == [row.train_loss for row in taught.phases[-1].epochs]


def test_the_teacher_runs_once_for_each_view(folder, teacher):
    seen = []
    for views, images in ((2, True), (2, False), (3, True)):
        task, chosen = resolved(folder, "partial", views=views, teacher=teacher)
        with trainer.prepare(task, chosen, seen.append) as session:
            trainer.fit(session, chosen)
        passes = [event for event in seen if isinstance(event, Progress) and event.phase.startswith("teacher")]
        assert bool(passes) == images
        seen.clear()


def test_a_teacher_of_an_earlier_version_with_blanks_in_names_of_classes(folder, trained_run, tmp_path):
    other = changed_copy(trained_run.full, tmp_path / "other", classes=["blue ", "green", " red"])
    with opened(folder, "partial", teacher=str(other))[0] as session:
        assert session.teacher is not None


def test_a_teacher_that_does_not_fit(folder, trained_run, teacher, tmp_path):
    other = changed_copy(trained_run.full, tmp_path / "other", classes=["ant", "bee", "red"])
    with (
        pytest.raises(UsageError, match="--teacher other has other classes than the images: without blue, green and with ant, bee"),
        opened(folder, "partial", teacher=str(other))[0],
    ):
        pass
    with pytest.raises(UsageError, match="--teacher , names no run"), opened(folder, "partial", teacher=",")[0]:
        pass
    with pytest.raises(UsageError, match="is on the hub"), opened(folder, "partial", teacher="hf://me/run")[0]:
        pass
    with pytest.raises(RunError, match="--teacher nobody: no run 'nobody'"), opened(folder, "partial", teacher="nobody")[0]:
        pass
    damaged = shutil.copytree(trained_run.full, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match="was changed after the export"), opened(folder, "partial", teacher=str(damaged))[0]:
        pass


def test_a_teacher_in_a_folder_with_a_comma(folder, trained_run, tmp_path):
    copied = shutil.copytree(trained_run.full, tmp_path / "one, two" / "first")
    with opened(folder, "partial", teacher=str(copied))[0] as session:
        assert session.teacher.runs == ("first",)


def test_a_teacher_that_has_seen_the_valid_images_is_named(folder, tmp_path):
    made = train.train_run(*resolved(folder, "partial", out=str(tmp_path / "out"), onnx=False))
    assert noted(folder, made.folder, seed=0) == []
    (note,) = noted(folder, made.folder, seed=1)
    valid = pd.read_csv(f"{made.folder}/images.csv").query("split == 'valid'")
    assert f"of the {len(valid)} valid images were training images of the teacher {made.run}" in note and "the same --seed, --fold and --data" in note


def test_the_name_of_a_task_is_the_run_that_is_the_latest_now(folder, tmp_path):
    out = str(tmp_path / "out")
    train.train_run(*resolved(folder, "partial", out=out, onnx=False, name="first"))
    taught = train.train_run(*resolved(folder, "partial", out=out, onnx=False, name="second", teacher="pictures"))
    assert taught.settings["teacher"] == f"{out}/pictures/first"


def test_teachers_in_python(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**TINY, "onnx": False, "quiet": True}
    run = tlfast.train(folder, name="first", **options)
    for n, given in enumerate((run, "first", ["first"], run.folder, [run, Path(run.folder)])):
        taught = tlfast.train(folder, name=f"taught{n}", teacher=given, **options)
        assert [Path(name).name for name in taught.settings.teacher.split(",")] == ["first"] * (2 if n == 4 else 1)
    assert tlfast.train(folder, name="plain", teacher=None, **options).settings.teacher == ""
    with pytest.raises(UsageError, match="not supported by a Learner"):
        tlfast.learner(folder, teacher=run, **TINY)


def noted(folder, teacher, **flags):
    said = []
    task, chosen = resolved(folder, "partial", teacher=teacher, **flags)
    with trainer.prepare(task, chosen, said.append):
        return [event.note for event in said if isinstance(event, Note) and "teacher" in event.note]


def test_a_cached_comparison_depends_on_the_weights_of_the_teacher(folder, trained_run, teacher):
    def trial(name):
        task, chosen = resolved(folder, "partial", teacher=name)
        return experiments.run_trial(task, chosen, lambda event: None)

    assert not trial(teacher).reused and trial(teacher).reused
    assert not trial(str(trained_run.partial)).reused
