"""Runs on the hub, from a local stand-in: what is downloaded, what is refused, and what works without a connection."""

from __future__ import annotations

import json

import pytest

from tests.helpers.hub import Repository
from tlfast.core.errors import RunError, UsageError
from tlfast.data.hub_client import parse_repository
from tlfast.inference import hub as client
from tlfast.inference.classifier import load


@pytest.fixture
def published(model_hub, run):
    """The stand-in with the run as `me/colours`."""
    from tlfast.commands.push import push_run

    push_run(run, "me/colours")
    model_hub.downloaded.clear()
    return model_hub


def replace(hub, name, data):
    hub.repositories["me/colours"].commit({name: data})


@pytest.mark.parametrize(
    "reference",
    [
        "hf://me",
        "me",
        "me/x@",
        "me/x@../y",
        "hf://me/a/b",
        "hf://me/..",
        "hf://",
        "hf://me/a b",
        "hf://../a",
        "me/é",
        "me/a--b",
        "me/.a",
        "me/a-",
        "me/a.git",
        f"me/{'x' * 200}",
    ],
)
def test_references_that_name_no_repository(reference):
    with pytest.raises(UsageError, match="is not a repository of the hub"):
        parse_repository(reference)


def test_a_classifier_from_the_hub_gives_the_probabilities_of_the_run(published, run, pictures):
    photo = pictures / "red" / "0.png"
    found = load("hf://me/colours")
    assert found.predict(photo).probabilities == load(run.folder).predict(photo).probabilities
    assert found.run == "r"
    assert sorted(published.downloaded) == ["metrics.json", "model.onnx", "run.json", "run.json.sha256"]


def test_nothing_else_of_the_repository_is_downloaded(published):
    replace(published, "learner.pkl", b"cos\nsystem\n")
    replace(published, "model/model.onnx", b"elsewhere")
    client.fetch_run("hf://me/colours", client.ALL_FILES)
    assert set(published.downloaded) <= {
        "README.md",
        "config.json",
        "history.csv",
        "metrics.json",
        "model.onnx",
        "model.safetensors",
        "run.json",
        "run.json.sha256",
    }


def test_a_network_that_the_run_does_not_list_is_not_downloaded(published):
    replace(published, "model.tta-flip.onnx", b"of another run")
    client.fetch_run("hf://me/colours", client.ALL_FILES)
    assert "model.onnx" in published.downloaded and "model.tta-flip.onnx" not in published.downloaded


@pytest.mark.parametrize("name", ["model.onnx", "metrics.json", "run.json"])
def test_a_file_that_was_altered_on_the_server_is_refused_by_name(published, name):
    replace(published, name, published.repositories["me/colours"].files[name].replace(b"r", b"s", 1))
    with pytest.raises(RunError, match=rf"/{name}.* changed after the export"):
        load("hf://me/colours")
    with pytest.raises(RunError) as caught:
        load("hf://me/colours")
    assert caught.value.message.startswith("hf://me/colours: ") and "hf://me/colours@REVISION" in caught.value.hint


def test_a_manifest_without_checksums_is_refused(published):
    manifest = json.loads(published.repositories["me/colours"].files["run.json"])
    replace(published, "run.json", json.dumps({**manifest, "files": {}}).encode())
    with pytest.raises(RunError, match="has no checksums"):
        load("hf://me/colours")


def test_a_revision(published):
    first = next(iter(published.repositories["me/colours"].commits))
    published.repositories["me/colours"].tags["v1"] = first
    replace(published, "run.json", b"{}")
    for revision in ("v1", first):
        assert load(f"hf://me/colours@{revision}").run == "r"
    with pytest.raises(RunError, match="run.json is damaged"):
        load("hf://me/colours")
    with pytest.raises(RunError, match="hf://me/colours@v2: no such revision"):
        load("hf://me/colours@v2")


def test_a_broken_connection_is_continued(published, run):
    published.break_after = [100, 1000, 50]  # of metrics.json, model.onnx and others, in some order
    found = None
    for _ in range(4):
        try:
            found = load("hf://me/colours")
        except RunError as error:
            assert "the transfer failed" in error.message and "repeat" in error.hint
    assert found.classes == tuple(run.manifest["classes"]) and not published.break_after


def test_without_a_connection_an_earlier_download_is_used(published, monkeypatch, pictures):
    from huggingface_hub import constants

    load("hf://me/colours")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load("hf://me/colours").classes == ("blue", "green", "red")
    for other in ("hf://me/other", "hf://me/colours@v9"):
        with pytest.raises(RunError, match="the hub cannot be reached"):
            load(other)
    with pytest.raises(RunError, match="the hub cannot be reached"):  # the weights were not downloaded
        client.fetch_run("hf://me/colours", client.ALL_FILES)


def test_offline_mode_of_the_client_uses_an_earlier_download(published, monkeypatch):
    from huggingface_hub import constants

    load("hf://me/colours")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load("hf://me/colours").run == "r"
    with pytest.raises(RunError, match=r"the hub cannot be reached \(HF_HUB_OFFLINE is set\)"):
        load("hf://me/other")


def test_private_and_missing_repositories(published, monkeypatch):
    published.repositories["me/secret"] = Repository(private=True, commits=published.repositories["me/colours"].commits)
    assert load("hf://me/secret").run == "r"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for name in ("me/secret", "me/nothing"):
        with pytest.raises(RunError, match=f"hf://{name}: the hub has no such repository, or it is private") as caught:
            load(f"hf://{name}")
        assert "HF_TOKEN" in caught.value.hint


def test_a_repository_that_is_no_run(published):
    published.repositories["me/other"] = Repository()
    published.repositories["me/other"].commit({"README.md": b"# other"})
    with pytest.raises(RunError, match=r"hf://me/other is not a run: it has no run.json"):
        load("hf://me/other")


def test_a_file_with_augmentation_that_the_repository_lacks(published):
    with pytest.raises(RunError, match=r"hf://me/colours has no model.tta-flip.onnx") as caught:
        load("hf://me/colours", tta="flip")
    assert caught.value.hint == "Ask its owner to write it, tlfast export RUN --tta flip, and to push the run again"
