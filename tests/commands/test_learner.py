from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.callback.schedule import minimum
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner, load_learner
from fastai.vision.learner import vision_learner
from torch import nn

import tlfast
from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.runs import copy_run
from tlfast.commands import learner
from tlfast.commands.interpret import interpret_run
from tlfast.core import runs
from tlfast.evaluation import plots
from tlfast.testing import TINY, draw_classes, draw_image
from tlfast.training.callbacks import KeepBatchNorm, manual_fit


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(trained_run, tmp_path) -> tlfast.Run:
    copy_run(trained_run.partial, tmp_path)
    return tlfast.Run("pictures")


@pytest.fixture
def learn(run) -> Learner:
    return run.learner()


def test_a_learner_of_a_run_predicts_as_the_run(run, learn):
    probabilities, _ = learn.get_preds(dl=learn.dls.valid)
    raw = torch.tensor(run.predictions[[f"p({name})" for name in run.classes]].to_numpy())
    temperature = run.manifest["temperature"]
    assert torch.allclose((probabilities.log() / temperature).softmax(1), raw, atol=1e-3)


def test_a_learner_of_a_run_weights_the_classes_as_its_training(run):
    assert run.learner().loss_func.func.weight is None
    manifest = run.folder / "run.json"
    manifest.write_text(manifest.read_text().replace('"class_weights": "none"', '"class_weights": "balanced"'))
    weights = tlfast.Run(run.folder, verify=False).learner().loss_func.func.weight
    assert weights.shape == (3,) and weights.mean() == pytest.approx(1.0, abs=0.2)


def test_methods_of_fastai_work(learn, pictures):
    path = str(pictures / "red" / "0.png")
    label, _, probabilities = learn.predict(path)
    assert label in learn.dls.vocab
    assert len(probabilities) == 3
    new = learn.get_preds(dl=learn.dls.test_dl([path, path]))[0]
    assert torch.allclose(new[0], probabilities, atol=1e-5)
    assert learn.tta(n=2)[0].shape == (len(learn.dls.valid_ds), 3)
    interpretation = ClassificationInterpretation.from_learner(learn)
    assert interpretation.confusion_matrix().sum() == len(learn.dls.valid_ds)
    learn.dls.show_batch(max_n=2)
    learn.show_results(max_n=2)
    assert 0 < learn.lr_find(num_it=40, stop_div=False, show_plot=False, suggest_funcs=minimum).minimum < 10


def test_losses_are_recorded_where_they_can_be_plotted(learn):
    with fake_gpu() as gpu:
        step = SimpleNamespace(loss=torch.zeros((), device=gpu), yb=(torch.zeros(8),), to_detach=learn.to_detach)
        for average in (learn.recorder.smooth_loss, learn.recorder.loss):
            average.reset()
            average.accumulate(step)
            assert average.value.device.type == "cpu"


def test_a_fit_without_a_step_keeps_the_accuracy_of_a_run_with_a_frozen_backbone(run):
    learn = run.learner()
    before = learn.validate()[1]
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, lr=1e-12)
    assert learn.validate()[1] == pytest.approx(before, abs=1e-6)
    learn.remove_cb(KeepBatchNorm)
    statistics = learn.model[0].bn1.running_mean.clone()
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=1e-12)
    assert not torch.equal(learn.model[0].bn1.running_mean, statistics)


def test_batchnorm_trains_where_the_run_trained_all_layers(pictures):
    learn = tlfast.train(pictures, full=True, epochs=1, freeze_epochs=1, quiet=True, **TINY).learner()
    assert not any(isinstance(callback, KeepBatchNorm) for callback in learn.cbs)


def test_a_fit_by_hand_shares_the_cores_until_its_end(learn, monkeypatch, tmp_path):
    events = []

    @contextmanager
    def record(device):
        events.append(f"begin on {device}")
        yield
        events.append("end")

    monkeypatch.setattr(manual_fit, "share_cores", record)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=1e-12)
    assert events == ["begin on cpu", "end"]
    learn.export(tmp_path / "fitted.pkl")
    assert load_learner(tmp_path / "fitted.pkl").dls.vocab == learn.dls.vocab


def test_an_exported_learner_is_small_and_opens(learn, pictures, tmp_path):
    before = learn.predict(str(pictures / "red" / "0.png"))
    learn.export(tmp_path / "mine.pkl")
    opened = load_learner(tmp_path / "mine.pkl")
    assert torch.allclose(opened.predict(str(pictures / "red" / "0.png"))[2], before[2], atol=1e-5)
    weights = sum(p.numel() * p.element_size() for p in learn.model.parameters())
    assert (tmp_path / "mine.pkl").stat().st_size < 2 * weights + 200_000  # without the decoded images


def test_a_run_from_a_learner_is_evaluated_and_exported(run, learn, pictures, monkeypatch):
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-3)
    made = tlfast.Run.from_learner(learn)
    accuracy = float(learn.validate()[1])
    assert made.metrics["accuracy"].value == pytest.approx(accuracy)
    assert made.history["epoch"].tolist() == [1, 2]
    assert made.history["accuracy"].tolist()[1] == pytest.approx(accuracy)
    assert made.predict(str(pictures / "red" / "0.png")).label in run.classes
    assert "fitted by hand" in repr(made)
    assert set(tlfast.runs()["strategy"]) == {"partial", "by hand"}
    assert "no command repeats this run" in made.report().path.read_text()
    assert made.evaluate()["accuracy"] == made.metrics["accuracy"]
    titles, plot = [], plots.plot_confusion_matrix
    monkeypatch.setattr(plots, "plot_confusion_matrix", lambda evaluation, path, title: titles.append(title) or plot(evaluation, path, title))
    interpret_run(runs.read_run(made.folder))
    assert "pictures, fine-tuning by hand of test_resnet" in titles[0]
    with pytest.raises(tlfast.UsageError, match="was fitted by hand in Python, and no command repeats it"):
        tlfast.train(pictures, like=made, quiet=True)
    assert not torch.equal(next(learn.model.parameters()), next(run.learner().model.parameters()))


def test_the_rates_of_a_fit_by_hand_are_recorded(learn):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, slice(1e-4, 1e-2))
    (phase,) = tlfast.Run.from_learner(learn).manifest["phases"]
    assert phase["lr"] == pytest.approx(1e-2, rel=0.2)  # the highest of few steps
    assert phase["lowest_lr"] == pytest.approx(phase["lr"] / 100)


def test_the_history_of_a_fit_outlasts_predictions(learn):
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-3)
        rows = [list(row) for row in learn.recorder.values]
        learn.get_preds()
        learn.show_results(max_n=1)
        learn.validate()
        learn.lr_find(num_it=40, stop_div=False, show_plot=False, suggest_funcs=minimum)
    made = tlfast.Run.from_learner(learn)
    assert made.history["accuracy"].tolist() == pytest.approx([row[2] for row in rows])
    assert made.manifest["phases"][0]["lr"] == pytest.approx(1e-3, rel=0.2)


def test_settings_without_effect_on_a_learner_are_named_and_not_recorded(pictures, caplog):
    learn = tlfast.learner(pictures, mixup=0.4, ema=True, epochs=77, keep="best", name="mine", augment="light", **TINY)
    assert "settings: without effect on a Learner: epochs, lr, mixup, ema, keep" in caplog.messages
    made = tlfast.Run.from_learner(learn)
    assert made.id == "mine" and made.settings.augment == "light"
    assert (made.settings.mixup, made.settings.ema, made.settings.epochs, made.settings.keep) == (0.0, False, 10, "auto")
    with pytest.raises(tlfast.UsageError, match="a run named 'mine' exists already"):
        tlfast.Run.from_learner(learn)
    assert tlfast.Run.from_learner(learn, name="other").id == "other"


def test_settings_of_the_task_are_no_given_settings(caplog):
    tlfast.learner("digits", arch="test_resnet", weights="none", limit=10, quiet=False)
    assert not any("without effect" in message for message in caplog.messages)


def test_the_settings_of_a_training_are_not_those_of_a_fit_by_hand(pictures):
    trained = tlfast.train(pictures, full=True, epochs=1, freeze_epochs=0, mixup=0.3, name="first", quiet=True, **TINY)
    made = tlfast.Run.from_learner(trained.learner())
    assert made.id != "first" and made.settings.mixup == 0 and made.settings.size == 32


def test_a_diverged_learner_is_refused(learn, tmp_path):
    next(learn.model[1].parameters()).data.fill_(float("nan"))
    with pytest.raises(tlfast.TrainingError, match="the Learner predicts NaN: its fit has diverged"):
        tlfast.Run.from_learner(learn)
    assert len(tlfast.runs()) == 1


def test_loaders_with_other_classes_are_refused(learn, tmp_path):
    others = draw_classes(tmp_path / "others", 6)
    (others / "red").rename(others / "a red")
    learn.dls = tlfast.learner(others, **TINY).dls
    with pytest.raises(tlfast.UsageError, match=r"the loaders of the Learner have the classes \['a red', 'blue', 'green'\], and the images"):
        tlfast.Run.from_learner(learn)
    assert tlfast.Run.from_learner(learn, "others").classes == ["a red", "blue", "green"]


@pytest.mark.parametrize("kind", ["path", "run", "data"])
def test_a_learner_is_evaluated_on_the_split_that_it_was_built_with(folder, kind):
    run = tlfast.train(folder, valid_pct=0.4, onnx=False, quiet=True, **{**TINY, "epochs": 1})
    learn = run.learner() if kind == "run" else tlfast.learner(folder, valid_pct=0.4, **TINY)
    valid = set(run.predictions["path"])
    if kind != "path":
        for number in range(3):
            draw_image(folder / "red" / f"0{number}.png", (0, 0, 0), number)
    made = tlfast.Run.from_learner(learn, *([folder] if kind == "path" else []))
    assert set(made.predictions["path"]) == valid


def test_a_learner_of_a_part_makes_a_run_of_that_part(folder):
    for part in ({"train_pct": 0.5}, {"limit": 6}):
        learn = tlfast.learner(folder, **part, **TINY)
        made = tlfast.Run.from_learner(learn)
        assert sum(made.manifest["data"]["counts"]["train"].values()) == len(learn.dls.train.items), part


def test_a_run_from_a_learner_on_other_images(learn, tmp_path):
    other = tlfast.dataset(draw_classes(tmp_path / "others", 6), valid_pct=0.5)
    made = tlfast.Run.from_learner(learn, other)
    assert len(made.predictions) == 9
    assert made.settings.task == "others"


def test_an_untrained_learner_has_the_layers_of_the_strategy(pictures):
    partial, full = (tlfast.learner(pictures, full=full, **TINY) for full in (False, True))
    trained = [sum(p.numel() for p in learn.model.parameters() if p.requires_grad) for learn in (partial, full)]
    assert trained[0] < trained[1] == sum(p.numel() for p in full.model.parameters())
    assert full.metrics[0].name == "accuracy"


def test_the_training_of_an_untrained_learner_improves_it(pictures):
    learn = tlfast.learner(pictures, full=True, **TINY)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(6, 1e-2)
    losses = np.array(learn.recorder.values)[:, 0]
    assert losses[-1] < losses[0]


def test_other_learners_are_refused(learn):
    stranger = vision_learner(learn.dls, "test_resnet", pretrained=False, normalize=False)
    with pytest.raises(tlfast.UsageError, match="this Learner was not built by tlfast"):
        tlfast.Run.from_learner(stranger)
    learn.model[1] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(tlfast.UsageError, match="the layers of the Learner differ"):
        tlfast.Run.from_learner(learn)


def test_a_run_from_a_learner_has_the_images_that_the_learner_was_opened_with(trained_run, run, tmp_path):
    moved = draw_classes(tmp_path / "moved", 6)
    made = tlfast.Run.from_learner(run.learner(data="moved"))
    assert made.settings.data == made.manifest["data"]["source"] == str(moved) and len(made.predictions) < len(run.predictions)
    assert tlfast.Run.from_learner(run.learner()).manifest["data"] == run.manifest["data"]


def test_settings_that_a_training_would_settle(pictures):
    learn = tlfast.learner(pictures, bs="auto", **{name: value for name, value in TINY.items() if name != "bs"})
    assert tlfast.Run.from_learner(learn).settings.bs > 0
    for given in ({"minutes": 10}, {"depth": "auto"}, {"preset": "good"}):
        with pytest.raises(tlfast.UsageError, match="choose the layers at the start of a training") as caught:
            tlfast.learner(pictures, **given, **TINY)
        assert caught.value.hint == "Give full=True or depth=0, without minutes and preset"


def test_a_learner_of_a_file_with_a_preset_has_the_layers_of_the_file(pictures, tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "good"\ndepth = 2\n')
    assert learner.settings_of(tlfast.learner(pictures, config="mine.toml", **TINY)).depth == "2"


def test_an_interrupted_export_leaves_no_training_to_resume(learn, monkeypatch, tmp_path):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(learner, "publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tlfast.Run.from_learner(learn)
    assert not list(tmp_path.rglob("*.unfinished"))


def test_runs_from_a_learner_are_in_the_folder_of_its_runs(pictures, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = tlfast.learner(pictures, out="mine", onnx=False, **TINY)
    frame = tlfast.dataset(folder).table
    for images, place in ((tlfast.dataset(folder), "mine"), (frame, "mine"), (tlfast.dataset(folder, out="other"), "other")):
        assert tlfast.Run.from_learner(learn, images, quiet=True).folder.resolve().is_relative_to(tmp_path / place)
    assert not (tmp_path / "exports").exists()
