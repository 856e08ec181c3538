"""tlfast export: smaller forms are judged before they are kept, and a bundle needs no tlfast."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile

import pytest

import tlfast
from tests.helpers.command_line import TINY
from tlfast.commands import export as export_module
from tlfast.core import runs
from tlfast.core.errors import RunError
from tlfast.inference import onnx_model

WITHOUT_TLFAST = "import sys, runpy; sys.modules['tlfast'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


@pytest.fixture
def run(cli, folder):
    """A run named "r" of task `pictures`, in the current folder's exports."""
    outcome = cli("train", folder, *TINY, "--epochs", 2, "--name", "r", "--quiet")
    assert outcome.code == 0, outcome.err
    return runs.find("r")


@pytest.mark.parametrize(("flags", "name"), [(["--quantize", "int8"], "model.int8.onnx"), (["--half"], "model.fp16.onnx")])
def test_a_smaller_form_is_judged_sealed_and_can_be_used(run, cli, folder, flags, name):
    outcome = cli("export", "r", *flags, "--allow-drop", "--json")
    assert outcome.code == 0, outcome.err
    (export,) = outcome.json["exports"]
    assert export["file"] == name and export["images"] == 6 and export["images_per_second"] > 0
    path = run.folder / name
    assert export["megabytes"] == pytest.approx(path.stat().st_size / 1e6)
    # what was said of it is true of it
    rows = [row for row in export_module._read_rows(run) if row.split == "valid"]
    small, whole = tlfast.load(path), tlfast.load("r")
    for classifier, said in ((small, export["accuracy"]), (whole, export["accuracy_before"])):
        assert sum(classifier.predict(row.path).label == row.label for row in rows) / 6 == pytest.approx(said)
    assert small.info == whole.info
    # it belongs to the run now
    again = runs.find("r", verified=True)
    assert again.manifest["exports"][name]["accuracy"] == export["accuracy"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match=name):
        runs.verify(again)
    refused = cli("export", "r", *flags, "--no-verify")
    assert refused.code == 2 and f"{name} exists already" in refused.err


def test_weights_are_eight_bits_wide(run, cli):
    assert cli("export", "r", "--quantize", "int8", "--allow-drop", "--quiet").code == 0
    import onnx

    graph = onnx.load(run.folder / "model.int8.onnx").graph
    large = {constant.name: constant.data_type for constant in graph.initializer if len(constant.dims) >= 2 and not constant.name.startswith("tlfast")}
    narrow = [name for name, kind in large.items() if kind in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    assert len(narrow) > len(large) / 2


def test_a_form_that_loses_is_refused_and_leaves_nothing(run, cli, monkeypatch):
    monkeypatch.setattr(export_module, "_measure_accuracy", lambda network, rows, phase, on_event: 0.5 if "int8" in phase else 0.52)
    before = sorted(path.name for path in run.folder.iterdir())
    outcome = cli("export", "r", "--quantize", "int8")
    assert outcome.code == 1 and "model.int8.onnx would lose 2.0 points of accuracy (0.5200 to 0.5000)" in " ".join(outcome.err.split())
    assert sorted(path.name for path in run.folder.iterdir()) == before
    runs.verify(runs.find("r"))
    assert cli("export", "r", "--quantize", "int8", "--allow-drop").code == 0


@pytest.mark.parametrize("target", ["bundle", "bundle.zip"])
def test_a_bundle_needs_no_tlfast(run, cli, folder, tmp_path, target):
    outcome = cli("export", "r", "--to", target)
    assert outcome.code == 0 and f"bundle: {target}" in outcome.out
    place = tmp_path / "bundle"
    if target.endswith(".zip"):
        zipfile.ZipFile(target).extractall(place)
    assert {path.name for path in place.iterdir()} == {"model.onnx", "README.md", "example.py", "SHA256SUMS"}
    for line in (place / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    picture = folder / "red" / "1.png"
    done = subprocess.run([sys.executable, "-c", WITHOUT_TLFAST, "example.py", picture], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    ours = tlfast.load("r").predict(picture)
    assert [name for _, name in answers] == list(ours.probabilities) and answers[0][0] == f"{ours.probability:.2%}"
    assert f"Accuracy {json.loads((run.folder / 'metrics.json').read_text())['accuracy']:.4f}" in (place / "README.md").read_text()
    refused = cli("export", "r", "--to", target)
    assert refused.code == 2 and "it exists already" in refused.err


def test_wrong_words(run, cli, folder):
    assert cli("export", "r").code == 2
    outcome = cli("export", "r", "--quantize", "int4")
    assert outcome.code == 2 and "--quantize 'int4' is not int8" in outcome.err
    shutil.rmtree(folder / "red")
    gone = cli("export", "r", "--quantize", "int8")
    assert gone.code == 1 and "images are not there, the first: " in gone.err
    (run.folder / onnx_model.FILE).unlink()
    assert cli("export", "r", "--half").code == 1 and "has no model.onnx" in cli("export", "r", "--half", "--no-verify").err
