"""Bundles."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

import tlfast
from tests.helpers.command_line import TINY
from tests.helpers.former import name_former_weights
from tlfast.export import bundle
from tlfast.inference import open_network, server
from tlfast.models import Weights, build_body

WITHOUT_TLFAST = "import sys, runpy; sys.modules['tlfast'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


@pytest.mark.parametrize("target", ["bundle", "bundle.zip"])
def test_a_bundle_needs_no_tlfast(run, cli, folder, tmp_path, target):
    outcome = cli("export", "r", "--to", target)
    assert outcome.code == 0 and f"bundle: {target}" in outcome.out
    place = tmp_path / "bundle"
    if target.endswith(".zip"):
        zipfile.ZipFile(target).extractall(place)
    assert {path.name for path in place.iterdir()} == {"model.onnx", "README.md", "example.py", "Dockerfile", "SHA256SUMS"}
    for line in (place / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest
    picture = folder / "red" / "1.png"
    done = subprocess.run([sys.executable, "-c", WITHOUT_TLFAST, place / "example.py", picture], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    ours = tlfast.load("r").predict(picture)
    assert [name for _, name in answers] == list(ours.probabilities) and answers[0][0] == f"{ours.probability:.2%}"
    assert f"Accuracy {json.loads((run.folder / 'metrics.json').read_text())['accuracy']:.4f}" in (place / "README.md").read_text()
    refused = cli("export", "r", "--to", target)
    assert refused.code == 2 and "it exists already" in refused.err
    refused = cli("export", "r", "--to", ".")
    assert refused.code == 2 and "--to .: this names no new folder or file" in refused.err


def test_a_bundle_holds_the_files_that_were_added_to_the_run(run, cli, folder, tmp_path):
    outcome = cli("export", "r", "--format", "torchscript", "--to", "bundle")
    assert outcome.code == 0, outcome.err
    assert "other runtimes have programs of their own: example_torchscript.py." in (tmp_path / "bundle" / "README.md").read_text()
    program = [sys.executable, "-W", "ignore", tmp_path / "bundle" / "example_torchscript.py", folder / "red" / "1.png"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0 and any(label in done.stdout for label in ("blue", "green", "red"))
    (tmp_path / "secret").write_text("x")
    bundle.write_bundle(replace(run, manifest={**run.manifest, "exports": {"../../../secret": {}}}), tmp_path / "other")
    assert "secret" not in (tmp_path / "other" / "SHA256SUMS").read_text()


INSTRUCTIONS = {"FROM", "ARG", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD"}


def test_the_dockerfile_serves_the_bundle(run, cli, tmp_path, monkeypatch):
    """Its command runs here, with the bundle in place of /model; no container engine is needed."""
    assert cli("export", "r", "--to", "bundle").code == 0
    lines = (tmp_path / "bundle" / "Dockerfile").read_text().splitlines()
    found = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert set(found) == INSTRUCTIONS and lines[0].startswith("FROM ") and found["COPY"] == ". /model"
    program, *words = json.loads(found["CMD"])
    served = []
    monkeypatch.setattr(server, "serve", lambda service, host, port, started: served.append((service.classifier.run, host, port, service.hosts)))
    outcome = cli(*(str(tmp_path / "bundle") if word == "/model" else word for word in words))
    assert program == "tlfast" and outcome.code == 0, outcome.err
    assert served == [("r", "0.0.0.0", int(found["EXPOSE"]), frozenset())]
    compile(json.loads(found["HEALTHCHECK"].removeprefix("CMD "))[2], "healthcheck", "exec")


def test_a_bundle_of_an_earlier_run_names_no_local_folder(run, tmp_path):
    name_former_weights(run.folder / "model.onnx", "/home/me/net.safetensors (--weights)")
    bundle.write_bundle(run, tmp_path / "bundle")
    assert not [path for path in (tmp_path / "bundle").iterdir() if b"/home/me" in path.read_bytes()]
    assert "net.safetensors (--weights)" in (tmp_path / "bundle" / "README.md").read_text()
    assert open_network(tmp_path / "bundle" / "model.onnx").info["weights"] == "net.safetensors (--weights)"


def test_neither_bundle_nor_model_names_a_local_folder(cli, folder, tmp_path):
    body = build_body(Weights("none", "test_resnet"), 32)
    weights = tmp_path / "private" / "net.safetensors"
    weights.parent.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in body.state_dict().items()}, weights)
    run = Path(cli("train", folder, *TINY, "--weights", weights, "--epochs", 1, "--json").json["folder"])
    assert cli("export", run, "--to", "bundle").code == 0
    passed_on = [run / "model.safetensors", *(tmp_path / "bundle").iterdir()]
    for path in passed_on:
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "net.safetensors (--weights)" in (tmp_path / "bundle" / "README.md").read_text()
