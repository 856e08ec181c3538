"""--compile: the compiled layers train, and the model itself is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.helpers.command_line import TINY
from tlfast.training.compilation import use_compilation


@pytest.mark.parametrize("strategy", [["--full"], ["--depth", "1"]], ids=" ".join)
def test_compiled_training_gives_the_same_weights_and_an_onnx_file(strategy, folder, cli, monkeypatch):
    compiled, compile_module = [], nn.Module.compile

    def compile_eagerly(self):
        """Trace the model as torch.compile does, without the compilation of kernels, which takes a minute."""
        compiled.append(self)
        compile_module(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    results = []
    for flags in ([], ["--compile"]):
        outcome = cli("train", folder, *TINY, *strategy, *flags, "--epochs", 2, "--seed", 0, "--json", "--quiet")
        assert outcome.code == 0, outcome.err
        assert outcome.json["onnx"]["top1"] == 1
        results.append(json.loads((Path(outcome.json["folder"]) / "metrics.json").read_text()))
    assert len(compiled) == 1 and compiled[0]._compiled_call_impl is None
    assert results[0]["log_loss"] == pytest.approx(results[1]["log_loss"], rel=1e-3)


def test_every_model_of_a_process_is_compiled(monkeypatch):
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="eager"))
    counters.clear()
    for width in range(1, 11):  # more than torch compiles of one function
        model = nn.Linear(2, width)
        with use_compilation(model, True):
            model(torch.zeros(2, 2))
    assert counters["stats"]["unique_graphs"] == 10
