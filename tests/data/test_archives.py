"""Tarballs: unpacked whole, or refused before anything is written."""

from __future__ import annotations

import io
import tarfile
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.helpers.files import image_bytes
from tlfast.core.errors import DataError
from tlfast.core.events import Progress
from tlfast.data import archives


def write_tarball(path: Path, members: dict[str, bytes | str], mode: str = "w:gz") -> Path:
    """Write a tarball. The value of a member is its content, or the target of a link."""
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                file.addfile(info)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path):
    for other, refused in ((b"a", False), (b"b", True)):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr("x/1.png", b"a")
            file.writestr("x/1.png", other)
        with pytest.raises(DataError, match="has 'x/1.png' more than once") if refused else nullcontext():
            archives.unpack(tmp_path / "a.zip", tmp_path / f"out{refused}", lambda event: None)


@pytest.mark.parametrize(("ending", "mode"), [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar", "w"), ("tar.xz", "w:xz"), ("tar.bz2", "w:bz2")])
def test_all_files_are_unpacked(tmp_path, ending, mode):
    members = {f"repository-1/data/{i}.png": image_bytes(i) for i in range(3)} | {"repository-1/labels.csv": b"a,b\n"}
    archive, events = write_tarball(tmp_path / f"a.{ending}", members, mode), []
    assert archives.is_archive(archive)
    archives.unpack(archive, tmp_path / "out", events.append)
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == members
    assert events == [Progress(f"unpacking a.{ending}", 4, 4)]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a.png": b"1", "../b.png": b"2"}, "'../b.png' points outside the archive"),
        ({"a.png": b"1", "/b.png": b"2"}, "'/b.png' has an absolute path"),
        ({"a.png": b"1", "b.png": "/etc/passwd"}, "'b.png' is a link or a special file"),
    ],
)
def test_an_unsafe_member_is_refused_before_anything_is_written(tmp_path, members, problem):
    archive = write_tarball(tmp_path / "a.tar.gz", members)
    with pytest.raises(DataError) as caught:
        archives.unpack(archive, tmp_path / "out", lambda event: None)
    assert caught.value.message == f"a.tar.gz: {problem}; nothing was imported"
    assert not list((tmp_path / "out").iterdir())


def test_a_tarball_that_would_fill_the_disk(tmp_path, monkeypatch):
    archive = write_tarball(tmp_path / "a.tar.gz", {"1.png": bytes(2_000_000), "2.png": b"1"})
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 1_000_000)
    with pytest.raises(DataError, match="bytes would become 2,000,000; nothing was imported"):
        monkeypatch.setattr(archives, "MAX_RATIO", 100)
        archives.unpack(archive, tmp_path / "out", lambda event: None)


@pytest.mark.parametrize("damage", ["no tarball", "cut short", "other bytes"])
def test_a_damaged_tarball(tmp_path, damage):
    archive = write_tarball(tmp_path / "a.tar.gz", {f"{i}.png": image_bytes(i) * 50 for i in range(20)})
    content = archive.read_bytes()
    archive.write_bytes({"no tarball": b"text", "cut short": content[:-200], "other bytes": content[:300] + b"?" * 40 + content[340:]}[damage])
    with pytest.raises(DataError, match="a.tar.gz is not a tarball that can be unpacked"):
        archives.unpack(archive, tmp_path / "out", lambda event: None)
