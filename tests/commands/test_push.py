"""tlfast push and pull, with a local stand-in of the hub."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

import tlfast
from tests.helpers.former import name_former_weights
from tests.helpers.hub import Repository
from tlfast.commands.push import _find_base_model, push_run
from tlfast.core import runs, seals


def test_push_writes_networks_metrics_and_a_card(cli, run, model_hub, tmp_path):
    outcome = cli("push", "r", "me/colours", "--json")
    result = json.loads(outcome.out)
    files = model_hub.repositories["me/colours"].files
    assert outcome.code == 0 and result["files"] == sorted(files)
    assert set(files) == {"README.md", "config.json", "history.csv", "metrics.json", "model.onnx", "model.safetensors", "run.json", "run.json.sha256"}
    assert result["url"].endswith("/me/colours") and result["commit"] in model_hub.repositories["me/colours"].commits
    card = files["README.md"].decode()
    assert "tlfast predict hf://me/colours photo.jpg" in card and "licence of the images: not known" in card and "\nlicense" not in card
    assert not [name for name, data in files.items() if str(tmp_path).encode() in data or b"pytest-of" in data]  # no local paths


def test_names_of_images_are_not_uploaded(cli, run, model_hub):
    run = runs.read_run(run.folder)
    run.manifest["data"] |= {"unreadable": [{"path": "photos/secret.png", "reason": "not an image"}], "notes": ["left out: secret"]}
    push_run(run, "me/colours")
    files = model_hub.repositories["me/colours"].files
    assert json.loads(files["run.json"])["data"]["unreadable"] == [{"path": "", "reason": "not an image"}]
    assert not [name for name, data in files.items() if b"secret" in data]


def test_the_folder_of_the_weights_of_an_earlier_run_is_not_uploaded(run, model_hub):
    shutil.copyfile(run.folder / "model.onnx", run.folder / "model.fp16.onnx")
    for name in ("model.onnx", "model.fp16.onnx"):
        name_former_weights(run.folder / name, "/home/me/net.safetensors (--weights)")
    push_run(run, "me/colours")
    assert not [name for name, data in model_hub.repositories["me/colours"].files.items() if b"/home/me" in data]
    assert tlfast.pull("me/colours", quiet=True).classifier.info["weights"] == "net.safetensors (--weights)"


def test_the_card_names_the_licence_of_the_images(digits_hub):
    card = digits_hub.repositories["me/digits"].files["README.md"].decode()
    assert "licence of the images: CC BY 4.0" in card and "base_model" not in card.partition("# ")[0]  # its weights were random


def test_the_card_names_the_repository_of_the_pretrained_weights(run):
    changed = replace(run, manifest={**run.manifest, "settings": {**run.manifest["settings"], "weights": "auto"}})
    assert _find_base_model(changed) == "timm/test_resnet.r160_in1k" and _find_base_model(run) == ""


def test_the_pickle_only_if_asked_for(run, model_hub):
    assert "learner.pkl" not in push_run(run, "me/colours").files
    assert "learner.pkl" in push_run(run, "me/colours", pickle=True).files
    assert "learner.pkl" not in {path.name for path in tlfast.pull("me/colours", quiet=True).folder.iterdir()}


def test_a_second_push_replaces_all_files_of_the_first(cli, run, model_hub):
    shutil.copyfile(run.folder / "model.onnx", run.folder / "model.tta-flip.onnx")
    push_run(run, "me/colours", pickle=True)
    (run.folder / "model.tta-flip.onnx").unlink()
    repository = model_hub.repositories["me/colours"]
    repository.commit({"notes.txt": b"of the owner", "README.md": repository.files["README.md"].replace(b"---\n", b"---\nlicense: mit\n", 1)})
    push_run(run, "me/colours")
    assert {"model.tta-flip.onnx", "learner.pkl"}.isdisjoint(repository.files) and {"model.onnx", "notes.txt"} <= set(repository.files)
    assert repository.files["README.md"].decode().partition("# ")[0].count("license: mit") == 1
    assert cli("predict", "hf://me/colours", "missing.png").code == 1  # verified, and found
    assert tlfast.pull("me/colours", quiet=True).id == "r-2"


def test_private(cli, run, model_hub):
    assert push_run(run, "me/hidden", private=True).private and model_hub.repositories["me/hidden"].private
    assert not push_run(run, "me/seen").private
    outcome = cli("push", "r", "me/seen", "--private", "--json")
    assert outcome.code == 2 and outcome.json["error"] == "me/seen exists already, and is public"
    assert outcome.json["hint"] == "Leave out --private, make it private on the hub, or give a new name"
    assert len(model_hub.repositories["me/seen"].commits) == 1


def test_another_repository_is_not_changed(run, model_hub):
    model_hub.repositories["me/novel"] = Repository()
    model_hub.repositories["me/novel"].commit({"chapter.txt": b"It was a dark night."})
    with pytest.raises(tlfast.UsageError, match=r"me/novel holds something else \(chapter.txt\)"):
        push_run(run, "me/novel")
    assert set(model_hub.repositories["me/novel"].files) == {"chapter.txt"}


def test_a_missing_and_a_wrong_token(cli, run, model_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    outcome = cli("push", "r", "me/colours")
    assert outcome.code == 1 and "401" in outcome.err and "hf auth login" in outcome.err
    monkeypatch.delenv("HF_TOKEN")
    outcome = cli("push", "r", "me/colours")
    assert outcome.code == 1 and "no token of the hub is set" in outcome.err and not model_hub.repositories


def test_a_namespace_of_somebody_else(cli, run, model_hub):
    outcome = cli("push", "r", "you/colours")
    assert outcome.code == 1 and "403" in outcome.err


@pytest.mark.parametrize("name", ["colours", "me/colours@v1", "hf://me"])
def test_names_that_cannot_be_pushed_to(cli, run, model_hub, name):
    assert cli("push", "r", name).code == 2 and not model_hub.repositories


def test_push_without_a_connection(cli, run, model_hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    outcome = cli("push", "r", "me/colours")
    assert outcome.code == 1 and "me/colours: the transfer failed" in outcome.err


def test_pull_gives_a_run_that_works_as_the_former(cli, run, model_hub, pictures):
    tlfast.Run("r").push("me/colours", quiet=True)
    pulled = tlfast.pull("me/colours", out="others", quiet=True)
    assert pulled.id == "r" and pulled.manifest["hub"]["repository"] == "me/colours"
    assert pulled.metrics["accuracy"] == tlfast.Run("r").metrics["accuracy"]
    runs.verify(runs.read_run(pulled.folder))
    assert not (pulled.folder.parent / "latest").exists()
    with pytest.raises(tlfast.DataError, match="was pulled from the hub, and has no images"):
        pulled.evaluate(quiet=True)
    with pytest.raises(tlfast.DataError, match="was pulled from the hub, and has no images"):
        pulled.export(half=True)
    with pytest.raises(tlfast.DataError, match="was pulled from the hub, and has no images") as caught:
        pulled.top_losses()
    assert caught.value.hint == 'Evaluate it on your images: run.evaluate(data="photos/")'
    with pytest.raises(tlfast.RunError) as caught:
        pulled.report()
    assert caught.value.hint == f"It was pulled from the hub. On your images: tlfast interpret {pulled.folder} --data PATH"
    interpreted = cli("interpret", pulled.folder, "--data", pictures)
    assert interpreted.code == 0 and "report:" not in interpreted.err
    scores = pulled.evaluate(data=str(pictures), quiet=True)
    assert scores["accuracy"] == tlfast.Run("r").metrics["accuracy"]
    again = tlfast.pull("me/colours", out="others", quiet=True)
    assert again.id == "r-2"  # nothing is overwritten


def publish_as(model_hub, run, task):
    """Push a run, and change the name of its task in the repository."""
    push_run(run, "me/colours")
    manifest = json.loads(model_hub.repositories["me/colours"].files["run.json"])
    manifest["settings"]["task"] = task
    text = json.dumps(manifest).encode()
    model_hub.repositories["me/colours"].commit({"run.json": text, "run.json.sha256": seals.format_seal(text).encode()})


def test_a_pulled_run_needs_the_name_of_a_folder(cli, run, model_hub):
    publish_as(model_hub, run, "../../elsewhere")
    outcome = cli("pull", "me/colours")
    assert outcome.code == 1 and "no name of a folder" in outcome.err and "tlfast predict hf://me/colours IMAGE" in outcome.err


def test_a_pulled_run_may_be_of_any_folder_of_images(cli, run, model_hub):
    publish_as(model_hub, run, "c++")
    assert tlfast.pull("me/colours", quiet=True).folder.parent.name == "c++"


def test_a_manifest_cannot_name_files_elsewhere(cli, run, model_hub, tmp_path):
    push_run(run, "me/colours")
    (tmp_path / "secret.txt").write_text("mine")
    manifest = json.loads(model_hub.repositories["me/colours"].files["run.json"])
    manifest["files"][str(tmp_path / "secret.txt")] = manifest["files"]["../" * 20 + f"{tmp_path}/secret.txt"] = "0" * 64
    text = json.dumps(manifest).encode()
    model_hub.repositories["me/colours"].commit({"run.json": text, "run.json.sha256": seals.format_seal(text).encode()})
    pulled = tlfast.pull("me/colours", quiet=True)
    assert set(runs.read_run(pulled.folder).manifest["files"]) == {path.name for path in pulled.folder.iterdir()} - {"run.json", "run.json.sha256"}
    assert (tmp_path / "secret.txt").read_text() == "mine"


def test_use_from_the_hub(cli, run, model_hub, pictures):
    shutil.copyfile(run.folder / "model.onnx", run.folder / "model.fp16.onnx")
    push_run(run, "me/colours")
    photo = str(pictures / "red" / "0.png")
    here, there = (json.loads(cli("predict", name, photo, "--json").out) for name in ("r", "hf://me/colours"))
    assert here == there
    assert cli("export", "hf://me/colours", "--to", "bundle.zip").code == 0
    exported = cli("export", "hf://me/colours", "--half")
    assert exported.code == 1 and "the run hf://me/colours was pulled from the hub, and has no images" in exported.err and "push the run again" in exported.err
    outcome = cli("report", "hf://me/colours")
    assert outcome.code == 1 and "tlfast pull me/colours" in outcome.err
