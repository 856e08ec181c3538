"""Data sets of the hub, from a local stand-in."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.files import image_bytes, message, tree
from tests.helpers.hub import Repository
from tests.helpers.web import Web
from tlfast import tasks
from tlfast.core.errors import DataError, UsageError
from tlfast.core.events import Event
from tlfast.data.sources import get_data, open_data
from tlfast.data.task import Source, Task
from tlfast.tasks import resolve_settings

FER, WEEDS = tasks.get_task("fer"), tasks.get_task("weeds")


def parquet_bytes(rows: list[dict[str, Any]], names: list[str] | None, image: str = "image", label: str = "label") -> bytes:
    """Return a parquet file as the hub's conversion writes it, with the classes' names in its metadata."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist(rows)
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def row(data: bytes, label: int | str) -> dict[str, Any]:
    return {"image": {"bytes": data, "path": None}, "label": label}


@pytest.fixture
def hub(web: Web, monkeypatch) -> Callable[[dict[str, bytes]], None]:
    """Make the local server a hub whose data set `some/faces` has these parquet files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", web.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", web.url + "/{repo_id}/resolve/{revision}/{filename}")
    web.headers = {"ETag": '"' + "e" * 40 + '"', "X-Repo-Commit": "c" * 40}
    web.files["/"] = b"ok"

    def publish(files: dict[str, bytes]) -> None:
        listing = [{"type": "file", "path": name, "size": len(data), "oid": "e" * 40} for name, data in files.items()]
        web.files["/api/datasets/some/faces/tree/refs%2Fconvert%2Fparquet"] = json.dumps(listing).encode()
        for name, data in files.items():
            web.files[f"/datasets/some/faces/resolve/refs%2Fconvert%2Fparquet/{name}"] = data

    return publish


def resolved(source: str, **flags: Any) -> tuple[Task, Any]:
    task, data = tasks.find_task(source)
    return task, resolve_settings(task, "partial", {"data": data, **flags})


def from_hub(task: Task) -> Task:
    return replace(task, sources=(Source("the hub", hub_dataset="some/faces"),))


def test_get_from_the_hub(tmp_path, web, hub):
    names = ["Anger", "HAPPY", "surprised"]
    hub({
        "default/train/0000.parquet": parquet_bytes([row(image_bytes(1), 0), row(image_bytes(2, "JPEG"), 1)], names),
        "default/train/0001.parquet": parquet_bytes([row(b"no image", 1)], names),
        "default/validation/0000.parquet": parquet_bytes([row(image_bytes(3, "BMP"), 2)], names),
        "default/test/0000.parquet": parquet_bytes([row(image_bytes(4, "GIF"), 2)], names),
        "other/train/0000.parquet": b"not looked at",
        "README.md": b"# faces",
    })  # fmt: skip
    events: list[Event] = []
    target = get_data(from_hub(FER), str(tmp_path), events.append)
    assert tree(target) == [
        "test/surprise/00000.gif", "train/angry/00001.png", "train/happy/00002.jpg", "train/happy/00003.jpg", "valid/surprise/00004.bmp",
    ]  # fmt: skip
    assert (target / "train/angry/00001.png").read_bytes() == image_bytes(1)
    assert {event.phase for event in events} == {"downloading some/faces", "unpacking some/faces", "done"}
    assert not any("other" in path for path, _ in web.seen)
    assert (tmp_path / ".downloads" / "fer" / "some--faces" / "default" / "train" / "0000.parquet").is_file()


def test_weeds_from_the_hub_are_class_folders(tmp_path, hub):
    names = ["chinee_apple", "Snake-weed", "Negatives", "SIAM WEED"]
    hub({"default/train/0000.parquet": parquet_bytes([row(image_bytes(n, "JPEG"), n) for n in range(4)], names)})
    target = get_data(from_hub(WEEDS), str(tmp_path))
    assert {Path(name).parent.as_posix() for name in tree(target)} == {"train/Chinee apple", "train/Snake weed", "train/Negative", "train/Siam weed"}
    assert WEEDS.rows and WEEDS.rows(target, 0) is None


def test_labels_as_words_and_images_as_bytes(tmp_path, hub):
    rows = [{"emotion": "happiness", "img_bytes": image_bytes()}]
    hub({"default/train/0000.parquet": parquet_bytes(rows, None)})
    assert tree(get_data(from_hub(FER), str(tmp_path))) == ["train/happy/00000.png"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"README.md": b""}, "some/faces has no Parquet conversion"),
        ({"default/partial-train/0000.parquet": b""}, "'partial-train' of some/faces is not a split: train, valid or test"),
        (
            {"default/train/0000.parquet": parquet_bytes([row(image_bytes(), 0)], ["contempt"])},
            "label 'contempt' is not one of: angry, disgust, fear, happy, sad, surprise, neutral",
        ),
        (
            {"default/train/0000.parquet": parquet_bytes([row(image_bytes(), -1)], ["happy"])},
            "label '-1' is not one of: angry, disgust, fear, happy, sad, surprise, neutral",
        ),
        (
            {"default/train/0000.parquet": parquet_bytes([row(image_bytes(), 3)], None)},
            "0000.parquet has no image column with a label column; it has: image, label",
        ),
        ({"default/train/0000.parquet": b"PAR1 no parquet"}, "0000.parquet cannot be read ("),
    ],
    ids=["none", "partial", "unknown class", "no label", "nameless numbers", "damaged"],
)
def test_hub_data_set_that_cannot_be_used(tmp_path, hub, files, reason):
    hub(files)
    assert reason in message(lambda: get_data(from_hub(FER), str(tmp_path)))
    assert not (tmp_path / "fer").exists()
    assert [name for name in os.listdir(tmp_path) if name != ".downloads"] == []


def test_data_set_that_the_hub_has_not(tmp_path, hub):
    found = message(lambda: get_data(from_hub(FER), str(tmp_path)))
    assert found.startswith("the images of task 'fer' cannot be downloaded: the hub: ")
    assert "404" in found


def test_a_source_that_may_be_private_names_the_token(tmp_path, model_hub):
    with pytest.raises(DataError, match="the hub: the hub has no such repository, or it is private") as caught:
        get_data(from_hub(FER), str(tmp_path))
    assert "Set HF_TOKEN" in caught.value.hint and caught.value.hint.endswith("then: tlfast data import fer PATH")


def test_hub_that_is_not_there_fails_at_once(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert message(lambda: get_data(FER, str(tmp_path))) == (
        "the images of task 'fer' cannot be downloaded: Hugging Face SmolVEncoder/fer2013: the transfer failed ([Errno 111] Connection refused); "
        "Hugging Face Jeneral/fer-2013: the transfer failed ([Errno 111] Connection refused)"
    )


# Training on a data set in place


def shards(prefix="default/"):
    names, colours = ["ant", "bee"], [40, 200]
    train = [row(image_bytes(colours[n % 2] + n), n % 2) for n in range(8)]
    return {
        f"{prefix}train/0000.parquet": parquet_bytes(train[:4], names),
        f"{prefix}train/0001.parquet": parquet_bytes(train[4:], names),
        f"{prefix}test/0000.parquet": parquet_bytes([row(image_bytes(9), -1), row(image_bytes(10), 1)], names),
    }


def publish(model_hub, files, branch):
    repository = model_hub.repositories["datasets/some/faces"] = Repository()
    repository.tags[branch] = repository.commit({**files, "README.md": b"# faces"})


def test_a_data_set_of_the_hub_is_trained_on_by_its_address(cli, model_hub):
    publish(model_hub, shards(), "refs/convert/parquet")
    outcome = cli("train", "hf://datasets/some/faces", *TINY, "--epochs", 1, "--json")
    assert outcome.code == 0, outcome.err
    data = outcome.json["data"]
    assert data["source"] == "hf://datasets/some/faces" and data["classes"] == ["ant", "bee"]
    assert sum(data["counts"]["train"].values()) + sum(data["counts"]["valid"].values()) == 8 and data["counts"]["test"] == {"ant": 0, "bee": 1}
    assert "1 images without a label are skipped" in data["notes"]
    run = outcome.json["folder"]
    assert cli("cache", "clear").code == 0
    assert cli("evaluate", run, "--json").json["evaluation"]["accuracy"] == outcome.json["evaluation"]["accuracy"]  # unpacked again
    assert "differ" not in cli("evaluate", run).err
    assert cli("report", run).code == 0 and "tlfast train hf://datasets/some/faces" in Path(run, "MODEL_CARD.md").read_text()


def test_a_data_set_without_a_conversion_is_read_as_it_is(model_hub):
    publish(model_hub, shards(""), "main")
    table = open_data(*resolved("hf://datasets/some/faces"))
    assert {(row.split, row.label) for row in table.rows} >= {("test", "bee"), ("train", "ant")}


@pytest.mark.parametrize("address", ["hf://datasets/faces", "hf://datasets/", "hf://datasets/a/../b"])
def test_addresses_that_name_no_data_set(address):
    with pytest.raises(UsageError, match="is not a repository of the hub"):
        open_data(*resolved(address))


def test_a_data_set_that_is_not_there(model_hub, cli):
    outcome = cli("train", "hf://datasets/some/others", *TINY)
    assert outcome.code == 1 and "hf://datasets/some/others" in outcome.err and "hf auth login" in outcome.err
