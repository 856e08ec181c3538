"""Trainings on a GPU: `scripts/test -m gpu` on a machine that has one. Skipped elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback, ShowGraphCallback
from fastai.torch_core import TensorImage, set_seed
from fasttransform import Pipeline
from safetensors.torch import load_file

import tlfast
from tests.helpers.command_line import TINY
from tests.helpers.interruption import stopping_at, train_way
from tests.helpers.syncs import STEPS, count_waiting_calls
from tlfast.commands import loaded_run
from tlfast.core import journal, runs
from tlfast.core.errors import Interrupted
from tlfast.testing import TINY as TINY_KEYWORDS
from tlfast.training import features, loaders, trainer
from tlfast.training.activations import ActivationLoader
from tlfast.training.augment import PRESETS, build_transforms
from tlfast.training.batch_augment import BatchAugmentation
from tlfast.training.feature_codec import decode_tensors, encode
from tlfast.training.features import SplitFeatures

KIND = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
ON_GPU = [*TINY, "--device", KIND, "--epochs", "2"]
STRATEGIES = [["--partial"], ["--partial", "--train-bn"], ["--depth", "1"], ["--depth", "auto"], ["--minutes", "0.5"], ["--full"], ["--full", "--ema"]]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not KIND, reason="torch finds no GPU")]


def read_manifest(outcome):
    return json.loads((Path(outcome.json["folder"]) / "run.json").read_text())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=" ".join)
def test_each_strategy_trains_and_its_onnx_file_agrees(strategy, folder, cli):
    outcome = cli("train", folder, *ON_GPU, *strategy, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.json["device"].startswith(KIND) and outcome.json["onnx"]["top1"] == 1


@pytest.mark.parametrize("amp", ["auto", "bf16", pytest.param("fp16", marks=pytest.mark.skipif(KIND != "cuda", reason="fp16 needs CUDA"))])
@pytest.mark.parametrize("strategy", [["--full"], ["--depth", "1"]], ids=" ".join)
def test_mixed_precision_gives_finite_losses(amp, strategy, folder, cli):
    outcome = cli("train", folder, *ON_GPU, *strategy, "--amp", amp, "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    losses = [row["train_loss"] for phase in outcome.json["phases"] for row in phase["epochs"]]
    assert len(losses) >= 2 and np.isfinite(losses).all()
    if amp != "auto":
        assert outcome.json["phases"][-1]["precision"] == amp


def test_the_automatic_precision_is_native(folder, cli):
    outcome = cli("train", folder, *ON_GPU, "--full", "--json", "--quiet")
    native = KIND == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    assert outcome.json["phases"][-1]["precision"] == ("bf16" if native else "fp16" if KIND == "cuda" else "off")


@pytest.mark.parametrize("way", ["depth", "full"])
def test_an_interrupted_training_is_resumed(way, pictures, tmp_path):
    last = "upper stages" if way == "depth" else "all layers"
    with pytest.raises(Interrupted):
        train_way(way, pictures, tmp_path, stopping_at(last, 4), device=KIND)
    result = train_way(way, pictures, tmp_path, resume=journal.NEWEST, device=KIND)
    assert [len(phase.epochs) for phase in result.phases] == [2, 3]
    assert all(np.isfinite([row.train_loss for row in phase.epochs]).all() for phase in result.phases)


@pytest.mark.skipif(KIND != "cuda", reason="the memory of other devices cannot be limited")
def test_too_little_memory_halves_the_batch(pictures, tmp_path):
    total = torch.cuda.get_device_properties(0).total_memory
    used = torch.cuda.memory_reserved()
    notes = []
    torch.cuda.set_per_process_memory_fraction((used + 600e6) / total)
    try:
        result = train_way(
            "full", pictures, tmp_path, lambda event: notes.append(getattr(event, "note", "")), device=KIND, arch="resnet18", size=512, bs=32, freeze_epochs=0
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert any(note.startswith("out of memory with") for note in notes) and len(result.phases[-1].epochs) == 3


@pytest.mark.skipif(KIND != "cuda", reason="only CUDA counts allocated memory")
def test_a_training_finds_the_memory_of_the_one_before_free(pictures, tmp_path, monkeypatch):
    used, build = [], trainer.build_loaders
    monkeypatch.setattr(trainer, "build_loaders", lambda *arguments: used.append(torch.cuda.memory_allocated()) or build(*arguments))
    for _ in range(3):
        train_way("full", pictures, tmp_path, device=KIND)
    assert used[2] <= used[1]  # the first one allocates the workspaces of the libraries


def test_a_learner_of_the_user_plots_its_losses(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn = tlfast.learner(pictures, device=KIND, quiet=True, **TINY_KEYWORDS)
    assert learn.lr_find(num_it=20).valley > 0
    assert len(plt.gca().lines[0].get_ydata()) > 5
    plt.close("all")
    learn.fit(2)
    learn.recorder.plot_loss(skip_start=0)
    assert np.isfinite(plt.gca().lines[0].get_ydata()).sum() == 2 * len(learn.dls.train)


def test_a_callback_of_the_user_plots_the_losses_of_a_training(pictures, tmp_path, monkeypatch):
    plotted = []

    class Plot(Callback):
        def after_epoch(self):
            plt.close("all")
            self.recorder.plot_loss(skip_start=0)
            plotted.append(np.isfinite(plt.gca().lines[0].get_ydata()).all())

    monkeypatch.chdir(tmp_path)
    tlfast.train(pictures, full=True, device=KIND, quiet=True, cbs=[Plot(), ProgressCallback(), ShowGraphCallback()], **TINY_KEYWORDS, epochs=2)
    assert len(plotted) >= 3 and all(plotted)  # of the head, and of all layers


def test_the_learning_rate_finder(folder, cli):
    outcome = cli("lr-find", folder, *ON_GPU, "--full", "--json", "--quiet")
    assert outcome.code == 0 and list(outcome.json) == ["head", "all layers"], outcome.err


def test_a_run_is_interpreted_with_the_same_result_on_any_device(folder, cli):
    run_folder = cli("train", folder, *ON_GPU, "--json", "--quiet").json["folder"]
    for command in ("interpret", "evaluate", "report"):
        for device in ("cpu", KIND):
            outcome = cli(command, run_folder, "--device", device, "--json", "--quiet")
            assert outcome.code == 0, outcome.err
    log_probabilities = []
    for device in ("cpu", KIND):
        model = loaded_run.load_run(runs.find(run_folder), "", device, lambda event: None)
        log_probabilities.append(loaded_run.predict_split(model, "valid", lambda event: None).log_probabilities)
    assert np.abs(np.exp(log_probabilities[0]) - np.exp(log_probabilities[1])).max() < 1e-2


def test_compiled_layers_train(folder, cli):
    outcome = cli("train", folder, *ON_GPU, "--full", "--compile", "--json", "--quiet")
    assert outcome.code == 0, outcome.err


@pytest.mark.skipif(KIND != "cuda", reason="only CUDA reports waiting calls")
@pytest.mark.parametrize("name", STEPS)
def test_no_call_of_a_step_waits_by_the_count_of_cuda(name, pictures):
    assert count_waiting_calls(name, pictures) == {"count": 0.0, "places": {}, "device": "cuda"}


def test_a_seed_gives_the_augmentation_of_the_cpu():
    x, results = torch.rand(16, 3, 40, 40), []
    for device in ("cpu", KIND):
        set_seed(1)
        results.append(Pipeline([BatchAugmentation(build_transforms(PRESETS["strong"]))], split_idx=0)(TensorImage(x.to(device))).cpu())
    assert (results[0] - results[1]).abs().max() < 1e-3


@pytest.mark.skipif(KIND != "cuda", reason="deterministic algorithms are those of CUDA")
@pytest.mark.parametrize("way", ["partial", "depth", "full"])
def test_deterministic_algorithms_give_the_same_weights_twice(way, pictures, tmp_path):
    folders = [train_way(way, pictures, tmp_path / name, device=KIND, amp="bf16", deterministic=True).folder for name in ("first", "second")]
    first, second = (load_file(Path(folder) / "model.safetensors") for folder in folders)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(KIND != "cuda", reason="features are placed on CUDA devices only")
@pytest.mark.parametrize("number_format", ["fp16", "int8"])
def test_placed_features_are_those_that_are_read(number_format):
    rows = encode(torch.randn(50, 4, 3, 3), number_format)
    part = SplitFeatures([rows, rows[::-1]], [np.arange(50)] * 2, torch.arange(50).repeat(2))
    placed, items = part.place(torch.device(KIND)), torch.tensor([0, 70, 99])
    assert torch.equal(decode_tensors(*(whole[items.to(KIND)] for whole in placed)).cpu(), part[items])
    loaded = [(x.cpu(), y.cpu()) for x, y in ActivationLoader(part, 8, False, torch.device(KIND))]
    assert torch.equal(torch.cat([y for _, y in loaded]).as_subclass(torch.Tensor), torch.arange(50))


@pytest.mark.parametrize("strategy", [["--partial"], ["--depth", "1"], ["--full"]], ids=" ".join)
def test_what_does_not_fit_on_the_gpu_is_copied_batch_by_batch(strategy, folder, cli, monkeypatch):
    outcomes = [cli("train", folder, *ON_GPU, *strategy, "--amp", "off", "--deterministic", "--json", "--quiet")]
    for module in (loaders, features):
        monkeypatch.setattr(module, "fits_on_gpu", lambda nbytes, device: False)
    outcomes.append(cli("train", folder, *ON_GPU, *strategy, "--amp", "off", "--deterministic", "--json", "--quiet"))
    first, second = (outcome.json["phases"][-1]["epochs"] for outcome in outcomes)
    for placed, copied in zip(first, second, strict=True):
        assert placed["train_loss"] == pytest.approx(copied["train_loss"], rel=1e-4)


@pytest.mark.skipif(KIND != "cuda" or torch.cuda.device_count() < 2, reason="needs two GPUs with CUDA")
@pytest.mark.parametrize("way", [["--full"], ["--full", "--sync-bn", "--amp", "bf16"], ["--depth", "1"]], ids=" ".join)
def test_two_gpus_train_one_network(way, folder, cli, tmp_path):
    outcome = cli("train", folder, *ON_GPU, *way, "--gpus", 2, "--name", "both", "--quiet")
    assert outcome.code == 0, outcome.err
    manifest = json.loads((tmp_path / "exports" / "pictures" / "both" / "run.json").read_text())
    assert manifest["settings"]["gpus"] == 2 and manifest["onnx"]["top1"] == 1
