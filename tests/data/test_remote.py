"""Images in other file systems, with the one of fsspec that lies in memory."""

from __future__ import annotations

import os

import fsspec
import pytest

import tlfast
from tests.helpers.command_line import invoke
from tlfast.core.errors import DataError, ImageError, UsageError
from tlfast.data.discovery import gather_sources
from tlfast.data.remote import list_remote, read_remote
from tlfast.testing import draw_image


@pytest.fixture
def stored(tmp_path):
    """Images and other files at `memory://bucket/photos`; returns the addresses of the images."""
    system = fsspec.filesystem("memory")
    colours = {"red": (200, 0, 0), "blue": (0, 0, 200)}
    for number, (name, colour) in enumerate(colours.items()):
        draw_image(tmp_path / f"{name}.png", colour, number)
        system.pipe(f"/bucket/photos/{name}/{number}.png", (tmp_path / f"{name}.png").read_bytes())
    system.pipe("/bucket/photos/notes.txt", b"text")
    system.pipe("/bucket/photos/.hidden/9.png", b"")
    system.pipe("/bucket/photos/red/bad.png", b"no image")
    yield ["memory://bucket/photos/blue/1.png", "memory://bucket/photos/red/0.png", "memory://bucket/photos/red/bad.png"]
    system.rm("/bucket", recursive=True)


def test_folders_patterns_and_files(stored):
    assert sorted(gather_sources(["memory://bucket/photos"])) == [name.replace("memory://", "memory:///") for name in stored]
    assert list(gather_sources(["memory://bucket/photos/*/0.png"])) == [stored[1].replace("memory://", "memory:///")]
    assert list(gather_sources([stored[0], "memory://bucket/gone.png"])) == [stored[0], "memory://bucket/gone.png"]


def test_predictions_of_stored_images(stored, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {row["path"].split("/")[-1]: row for row in invoke("predict", run.folder, "memory://bucket/photos", "memory://bucket/gone.png", "--json").json}
    assert "error" not in rows["0.png"] and "not an image" in rows["bad.png"]["error"] and "cannot be read" in rows["gone.png"]["error"]
    assert tlfast.load(run.folder).predict(stored[1]).label == rows["0.png"]["label"]
    parts = invoke("predict", run.folder, "memory://bucket/photos", "--out-dir", "answers", "--json")
    assert parts.json["images"] == 3 and parts.json["failed"] == 1
    refused = invoke("predict", run.folder, stored[0], "--no-network", "--json").json
    assert refused[0]["error"] == "not read, because --no-network is set"
    monkeypatch.setattr(fsspec.core, "url_to_fs", None)  # a folder is not listed
    assert invoke("predict", run.folder, "memory://bucket/photos", "--no-network", "--json").json == [{**refused[0], "path": "memory://bucket/photos"}]
    assert "Download it first: tlfast pull me/digits" in invoke("predict", "hf://me/digits", stored[0], "--no-network").err


def test_addresses_of_local_files(tmp_path):
    draw_image(tmp_path / "a.png", (200, 0, 0), 1)
    os.mkfifo(tmp_path / "b.png")
    assert read_remote(f"file://{tmp_path}/a.png") == (tmp_path / "a.png").read_bytes()
    with pytest.raises(ImageError, match="not a regular file"):
        read_remote(f"file://{tmp_path}/b.png")


def test_what_cannot_be_listed(monkeypatch):
    with pytest.raises(UsageError, match="addresses that begin with abc:// cannot be read"):
        list(list_remote("abc://x"))
    with pytest.raises(UsageError, match="addresses that begin with ftp:// cannot be read"):
        list(list_remote("ftp://127.0.0.1/x.png"))

    def fail(*arguments):
        raise PermissionError("no credentials")

    monkeypatch.setattr(fsspec.filesystem("memory"), "isdir", fail)
    with pytest.raises(DataError, match=r"memory://x cannot be listed \(no credentials\)"):
        list(list_remote("memory://x"))
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda source: (_ for _ in ()).throw(ImportError("Install s3fs to access S3")))
    with pytest.raises(UsageError, match=r"s3:// needs another package \(Install s3fs to access S3\)"):
        list(list_remote("s3://bucket/x"))
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda source: (_ for _ in ()).throw(OSError("host not found")))
    with pytest.raises(DataError, match=r"s3://bucket/x cannot be opened \(host not found\)"):
        list(list_remote("s3://bucket/x"))
    with pytest.raises(ImageError, match=r"s3://bucket/x cannot be opened"):
        read_remote("s3://bucket/x")
