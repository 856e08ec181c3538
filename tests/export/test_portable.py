"""Files for other runtimes: they agree with the network, and their example programs run."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.helpers.command_line import TINY
from tlfast.core import runs
from tlfast.core.errors import ExportError, UsageError
from tlfast.data import Preprocessing
from tlfast.export import portable
from tlfast.export.agreement import ResizedInput
from tlfast.inference import load
from tlfast.models import build_model

STATS = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(params=portable.PORTABLE)
def chosen(request):
    found = portable.PORTABLE[request.param]
    if found.package:
        pytest.importorskip(found.package)
    return found


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_files_give_the_probabilities_of_the_network_for_any_batch(chosen, arch, tmp_path):
    model = build_model(arch, 5, 64).eval()
    preprocessing = Preprocessing(64, 64, "squish", *STATS)
    portable.write_portable(chosen, ResizedInput(model, preprocessing, 1.3), 64, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(chosen.files)
    predict = chosen.load(tmp_path / chosen.files[0])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    for count in (1, 2, 5):
        normalized = (pixels[:count] / 255 - STATS[0]) / STATS[1]
        with torch.no_grad():
            expected = (model(torch.tensor(normalized.transpose(0, 3, 1, 2), dtype=torch.float32)) / 1.3).softmax(dim=1)
        np.testing.assert_allclose(predict(pixels[:count]), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ((), [*portable.PORTABLE]),
        (("--resize", "crop", "--crop-pct", "0.8"), ["onnx-resized"]),  # the lines that prepare an image are those of all formats
        (("--resize", "pad"), ["onnx-resized"]),
    ],
    ids=str,
)
def test_the_example_program_answers_like_the_run(cli, pictures, tmp_path, flags, names):
    assert cli("train", pictures, *TINY, *flags, "--name", "r").code == 0
    photo = pictures / "red" / "3.png"
    expected = load("r").predict(photo)
    for name in names:
        if portable.PORTABLE[name].package and not importlib.util.find_spec(portable.PORTABLE[name].package):
            continue
        outcome = cli("export", "r", "--format", name, "--json")
        assert outcome.code == 0, outcome.err
        (made,) = outcome.json["portable"]
        assert made["format"] == name and made["top1"] == 1 and made["images"] == 6 and made["largest_difference"] < 1e-4
        folder = runs.find("r").folder.resolve()
        assert all((folder / file).is_file() for file in made["files"])
        program = [sys.executable, "-W", "ignore", folder / made["files"][-1], photo]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        probability, label = ast.literal_eval(done.stdout)
        assert label == expected.label and probability == pytest.approx(expected.probability, abs=1e-4)
    runs.verify(runs.find("r"))
    assert cli("export", "r", "--format", names[0]).code == 2  # it exists already


def test_the_help_names_all_formats(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert all(name in cli("export", "--help").out for name in portable.PORTABLE)


def test_opset(cli, run):
    assert cli("export", "r", "--format", "onnx-resized", "--opset", 13).code == 0
    assert onnx.load(run.folder / "model.resized.onnx").opset_import[0].version == 13
    outcome = cli("export", "r", "--format", "onnx-resized", "--opset", 3)
    assert outcome.code == 2 and "--opset 3 must lie between 7 and 20" in outcome.err and not outcome.out
    outcome = cli("export", "r", "--format", "torchscript", "--opset", 13)
    assert outcome.code == 2 and "which is not made from ONNX" in outcome.err
    assert cli("export", "r", "--opset", 13).code == 2


@pytest.mark.parametrize(("arch", "opset"), [("test_resnet", 3), ("test_vit", 13)])
def test_an_opset_that_does_not_suit_is_an_error_without_the_graph(arch, opset, capfd):
    network = ResizedInput(build_model(arch, 5, 32).eval(), Preprocessing(32, 32, "squish", *STATS), 1.0)
    with pytest.raises(ExportError, match="cannot be written as onnx-resized") as caught:
        portable.write_portable(portable.PORTABLE["onnx-resized"], network, 32, Path("nowhere"), opset)
    assert caught.value.hint == "Use model.onnx, or another --format or --opset" and capfd.readouterr().out == ""


def test_a_wrong_format_is_an_error_before_another_file_is_written(cli, run):
    assert cli("export", "r", "--half", "--format", "torchscrip").code == 2 and not (run.folder / "model.fp16.onnx").exists()


def test_unknown_formats_and_missing_packages(cli, run, monkeypatch):
    outcome = cli("export", "r", "--format", "torchscrip")
    assert outcome.code == 2 and "Did you mean 'torchscript'?" in outcome.err
    monkeypatch.setattr(portable.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package openvino") as caught:
        portable.check_portable("openvino")
    assert 'pip install "tlfast[openvino]"' in caught.value.hint


def test_a_file_that_differs_is_refused_and_not_kept(cli, run, monkeypatch):
    load_file = portable.PORTABLE["torchscript"].load
    spoiled = replace(portable.PORTABLE["torchscript"], load=lambda path: lambda pixels: np.roll(load_file(path)(pixels), 1, axis=1))
    monkeypatch.setitem(portable.PORTABLE, "torchscript", spoiled)
    outcome = cli("export", "r", "--format", "torchscript")
    assert outcome.code == 1 and "model.torchscript.pt disagrees with the network on" in outcome.err
    assert not (run.folder / "model.torchscript.pt").exists()


def test_a_network_that_cannot_be_converted(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("no such operator")

    with pytest.raises(ExportError, match=r"cannot be written as torchscript \(no such operator\)"):
        network = ResizedInput(Odd(), Preprocessing(32, 32, "squish", *STATS), 1.0)
        portable.write_portable(portable.PORTABLE["torchscript"], network, 32, tmp_path)
