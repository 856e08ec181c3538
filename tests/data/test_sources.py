"""Where images come from: located, drawn, imported from folders and zips, downloaded from servers that misbehave, read from a hub.

Every server is a local stand-in.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from tests.helpers.paths import ROOT
from tlfast import tasks
from tlfast.core.errors import DataError, UsageError
from tlfast.core.events import Event, Progress
from tlfast.data import download, sources
from tlfast.data.sources import get_data, import_data, locate
from tlfast.data.task import Source, Task

FER, WEEDS, DIGITS = (tasks.registered_tasks()[name] for name in ("fer", "weeds", "digits"))
BODY = bytes(range(256)) * 1200  # 307,200 bytes: several chunks


def image_bytes(grey: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, kind)
    return buffer.getvalue()


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def message(call: Callable[[], Any], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.message


# Locating


def test_given_data_is_used_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert locate(FER, "~/mine") == tmp_path / "mine"
    monkeypatch.chdir(tmp_path / "mine")
    assert locate(FER, ".") == tmp_path / "mine"


@pytest.mark.parametrize("name", ["nowhere", "x" * 5000, "a\0b"])
def test_given_data_that_is_not_there(name):
    with pytest.raises(DataError) as caught:
        locate(FER, name)
    assert caught.value.message == f"{name}: no such folder or file"
    assert caught.value.hint == "--data takes a folder of class folders, a zip of one, or a CSV file"


def test_the_task_s_own_folder(tmp_path):
    (tmp_path / "fer" / "train").mkdir(parents=True)
    assert locate(FER, "", str(tmp_path)) == tmp_path / "fer"


@pytest.mark.parametrize("made", [False, True], ids=["absent", "empty"])
def test_no_images_yet(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    if made:
        Path("data/fer").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        locate(FER, "")
    assert caught.value.message == "no images of task 'fer' in data/fer"
    assert caught.value.hint == (
        "download them: tlfast data get fer; or import what you have: tlfast data import fer SRC; or use a folder, zip or CSV file where it lies: --data PATH"
    )


def test_no_images_of_a_task_that_can_only_be_given_some(tmp_path):
    with pytest.raises(DataError) as caught:
        locate(Task("pets", "pets"), "", str(tmp_path))
    assert caught.value.hint == "use a folder, zip or CSV file where it lies: --data PATH"


def test_digits_are_drawn_once(tmp_path):
    target = locate(DIGITS, "", str(tmp_path))
    assert target == tmp_path / "digits"
    assert len(tree(target)) == 1797
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    forbidden = replace(DIGITS, make=lambda folder: pytest.fail("drawn twice"))
    assert locate(forbidden, "", str(tmp_path)) == target
    assert os.listdir(tmp_path) == ["digits"]


def test_a_failed_drawing_leaves_nothing(tmp_path):
    def make(folder: Path) -> None:
        (folder / "1.png").write_bytes(b"")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate(replace(DIGITS, make=make), "", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_the_winner_of_a_race_is_used(tmp_path):
    def make(folder: Path) -> None:
        (folder / "ours.png").write_bytes(b"")
        (tmp_path / "digits").mkdir()
        (tmp_path / "digits" / "theirs.png").write_bytes(b"")

    assert tree(locate(replace(DIGITS, make=make), "", str(tmp_path))) == ["theirs.png"]
    assert os.listdir(tmp_path) == ["digits"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "data").write_text("a file")
    found = message(lambda: locate(DIGITS, "", str(tmp_path / "data")))
    assert found == f"{tmp_path}/data/digits cannot be filled: File exists ({tmp_path}/data)"


# Importing


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for label in ("happy", "sad"):
        (tmp_path / "faces" / "train" / label).mkdir(parents=True)
        (tmp_path / "faces" / "train" / label / "1.png").write_bytes(image_bytes())
    return tmp_path / "faces"


def test_nothing_is_written_over(tmp_path, faces):
    (tmp_path / "data" / "fer").mkdir(parents=True)
    (tmp_path / "data" / "fer" / "mine.txt").write_text("mine")
    for call in (lambda: import_data(FER, str(faces), str(tmp_path / "data")), lambda: get_data(FER, str(tmp_path / "data"))):
        with pytest.raises(DataError) as caught:
            call()
        assert caught.value.message == f"{tmp_path}/data/fer exists already"
        assert caught.value.hint == "It is used as it is; to have it anew, rename or remove it first"
    assert tree(tmp_path / "data") == ["fer/mine.txt"]


def test_an_empty_folder_may_be_filled(tmp_path, faces):
    (tmp_path / "data" / "fer").mkdir(parents=True)
    assert tree(import_data(FER, str(faces), str(tmp_path / "data"))) == ["train/happy/1.png", "train/sad/1.png"]


def test_import_of_what_is_not_there(tmp_path):
    with pytest.raises(UsageError) as caught:
        import_data(FER, "nowhere.zip", str(tmp_path))
    assert (caught.value.message, caught.value.exit_code) == ("nowhere.zip: no such folder or file", 2)


def test_import_for_a_task_that_takes_none(tmp_path, faces):
    with pytest.raises(UsageError) as caught:
        import_data(DIGITS, str(faces), str(tmp_path))
    assert caught.value.message == "task 'digits' takes no import"
    assert caught.value.hint == "Train on images of your own where they lie: --data PATH"


def test_import_of_another_kind_of_file(tmp_path):
    (tmp_path / "fer2013.tar.gz").write_bytes(b"\x1f\x8b")
    found = message(lambda: import_data(FER, str(tmp_path / "fer2013.tar.gz"), str(tmp_path / "data")), UsageError)
    assert found == f"{tmp_path}/fer2013.tar.gz is not a folder, a .zip or a .csv"
    assert os.listdir(tmp_path / "data") == []


def test_import_of_a_folder_without_images(tmp_path):
    (tmp_path / "faces" / "train" / "happy").mkdir(parents=True)
    assert message(lambda: import_data(FER, str(tmp_path / "faces"), str(tmp_path / "data"))) == f"no images in {tmp_path}/faces"
    assert os.listdir(tmp_path / "data") == []


def test_a_full_disk(tmp_path, faces):
    def arrange(source: Path, target: Path, beside: Path) -> None:
        (target / "1.png").write_bytes(b"")
        raise OSError(28, "No space left on device", str(target / "2.png"))

    found = message(lambda: import_data(replace(FER, arrange=arrange), str(faces), str(tmp_path / "data")))
    assert re.fullmatch(rf"{tmp_path}/data/fer cannot be filled: No space left on device \({tmp_path}/data/\.fer\.\w+\.partial/2\.png\)", found)
    assert os.listdir(tmp_path / "data") == []


def test_import_that_loses_a_race(tmp_path, faces):
    def arrange(source: Path, target: Path, beside: Path) -> None:
        (target / "ours.png").write_bytes(b"")
        (tmp_path / "data" / "fer").mkdir()
        (tmp_path / "data" / "fer" / "theirs.png").write_bytes(b"")

    found = message(lambda: import_data(replace(FER, arrange=arrange), str(faces), str(tmp_path / "data")))
    assert found == f"{tmp_path}/data/fer exists already"
    assert tree(tmp_path / "data") == ["fer/theirs.png"]


def test_import_of_a_zip_tells_how_far_it_is(tmp_path):
    (tmp_path / "faces.zip").write_bytes(zip_bytes({f"train/happy/{n}.png": image_bytes(n) for n in range(100)}))
    events: list[Event] = []
    target = import_data(FER, str(tmp_path / "faces.zip"), str(tmp_path / "data"), events.append)
    assert len(tree(target)) == 100
    assert [(event.phase, event.done, event.total) for event in events if isinstance(event, Progress)] == [
        ("unpacking faces.zip", 64, 100),
        ("unpacking faces.zip", 100, 100),
    ]


def test_zip_with_backslashes_and_leftovers_of_macos(tmp_path):
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("archive\\train\\happy\\1.png"), image_bytes())
        file.writestr("__MACOSX/archive/train/happy/._1.png", b"resource fork")
    assert tree(import_data(FER, str(archive), str(tmp_path / "data"))) == ["train/happy/1.png"]


def link_member() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("train/happy/2.png")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../2.png", "points outside the archive"),
        ("train/../../2.png", "points outside the archive"),
        ("train\\..\\..\\2.png", "points outside the archive"),
        ("/etc/2.png", "has an absolute path"),
        ("\\\\server\\share\\2.png", "has an absolute path"),
        ("C:\\train\\2.png", "has an absolute path"),
        ("c:2.png", "has an absolute path"),
        (link_member(), "is a link or a special file"),
    ],
    ids=str,
)
def test_unsafe_zip_is_refused_whole(tmp_path, member, reason):
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train/happy/1.png", image_bytes())
        file.writestr(member if isinstance(member, zipfile.ZipInfo) else zipfile.ZipInfo(member), b"../../secret")
    name = member if isinstance(member, str) else member.filename
    with pytest.raises(DataError) as caught:
        import_data(FER, str(archive), str(tmp_path / "data"))
    assert caught.value.message == f"faces.zip: '{name}' {reason}; nothing was imported"
    assert caught.value.hint == "If you trust it, unpack it yourself and import the folder"
    assert tree(tmp_path) == ["faces.zip"]
    assert os.listdir(tmp_path / "data") == []


def test_encrypted_zip(tmp_path):
    archive = bytearray(zip_bytes({"train/happy/1.png": image_bytes()}))
    archive[archive.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "faces.zip").write_bytes(archive)
    found = message(lambda: import_data(FER, str(tmp_path / "faces.zip"), str(tmp_path / "data")))
    assert found == "faces.zip: 'train/happy/1.png' is encrypted; nothing was imported"
    assert os.listdir(tmp_path / "data") == []


def test_zip_that_would_fill_the_disk(tmp_path, monkeypatch):
    archive = tmp_path / "faces.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/happy/1.png", bytes(2_000_000))
    monkeypatch.setattr(sources, "RATIO_COUNTS_FROM", 1_000_000)
    monkeypatch.setattr(sources, "MAX_RATIO", 100)
    found = message(lambda: import_data(FER, str(archive), str(tmp_path / "data")))
    assert found == f"faces.zip: {archive.stat().st_size:,} bytes would become 2,000,000; nothing was imported"
    monkeypatch.setattr(sources, "MAX_RATIO", 1_000_000)
    monkeypatch.setattr(sources, "MAX_UNPACKED", 1_999_999)
    assert message(lambda: import_data(FER, str(archive), str(tmp_path / "data"))) == found
    assert os.listdir(tmp_path / "data") == []


def damaged_zip() -> bytes:
    data = image_bytes()
    return zip_bytes({"train/happy/1.png": data}).replace(data, data[:-4] + b"oops")


@pytest.mark.parametrize(
    "content", [b"no zip at all", zip_bytes({"train/happy/1.png": image_bytes()})[:-30], damaged_zip()], ids=["text", "cut short", "checksum"]
)
def test_bad_zip(tmp_path, content):
    (tmp_path / "faces.zip").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{tmp_path}/faces\.zip is not a zip that can be unpacked \(") as caught:
        import_data(FER, str(tmp_path / "faces.zip"), str(tmp_path / "data"))
    assert caught.value.hint == "Check it with: python -m zipfile -t FILE"
    assert os.listdir(tmp_path / "data") == []


def test_zip_that_lies_about_a_size_writes_no_more_than_it_says(tmp_path):
    archive = bytearray(zip_bytes({"train/happy/1.png": bytes(5000)}))
    at = archive.index(b"PK\x01\x02") + 24
    archive[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "faces.zip").write_bytes(archive)
    assert "is not a zip that can be unpacked" in message(lambda: import_data(FER, str(tmp_path / "faces.zip"), str(tmp_path / "data")))


# Downloading


class Web:
    """A local server. `files` holds path -> body; the fields below make it misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {"ETag": '"one"'}
        self.content_type = "application/octet-stream"
        self.ranges = True  # honours Range and If-Range
        self.break_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.extra_length = 0  # added to the length that is announced
        self.wrong_range = False
        self.start = 0  # where an answer begins that no range was asked of
        self.status = 0
        self.seen: list[tuple[str, str | None]] = []  # (path, Range) of each GET
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        asked = handler.headers.get("Range")
        if handler.command == "GET":
            self.seen.append((path, asked))
        if self.status or path not in self.files:
            handler.send_error(self.status or 404)
            return
        body, start = self.files[path], self.start
        same = handler.headers.get("If-Range", self.headers.get("ETag")) == self.headers.get("ETag")
        if asked and self.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send(handler, body, start + 7 if self.wrong_range and start else start)

    def send(self, handler: BaseHTTPRequestHandler, body: bytes, start: int) -> None:
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.send_header("Content-Length", str(len(body) - start + self.extra_length))
        handler.send_header("Content-Type", self.content_type)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            stop = start + self.break_after.pop(0) if self.break_after else len(body)
            handler.wfile.write(body[start:stop])
        handler.close_connection = True


@pytest.fixture
def web(monkeypatch) -> Iterator[Web]:
    site = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(download, "PAUSE", 0.0)
    yield site
    server.shutdown()
    server.server_close()


def test_download(tmp_path, web):
    web.files["/a.bin"] = BODY
    events: list[Event] = []
    download(f"{web.url}/a.bin", tmp_path / "kept" / "a.bin", len(BODY), events.append)
    assert (tmp_path / "kept" / "a.bin").read_bytes() == BODY
    assert tree(tmp_path) == ["kept/a.bin"]
    assert (events[-1].phase, events[-1].done, events[-1].total) == ("downloading a.bin", len(BODY), len(BODY))


def test_finished_file_is_not_fetched_again(tmp_path, web):
    (tmp_path / "a.bin").write_bytes(b"mine")
    download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert (web.seen, (tmp_path / "a.bin").read_bytes()) == ([], b"mine")


def test_broken_connection_goes_on_where_it_stopped(tmp_path, web):
    web.files["/a.bin"], web.break_after = BODY, [200_000, 70_000]
    download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    offsets = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in web.seen[1:]]
    assert 0 < offsets[0] <= 200_000 and offsets[0] < offsets[1] <= 270_000


def test_later_run_goes_on_with_what_an_earlier_one_left(tmp_path, web):
    web.files["/a.bin"], web.break_after = BODY, [100_000, 1, 1, 1]
    host = web.url.removeprefix("http://")
    found = message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin"))
    kept = (tmp_path / "a.bin.part").stat().st_size
    assert found == f"{host}: the connection broke 4 times; {kept:,} bytes are kept to go on from"
    web.seen.clear()
    download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert web.seen == [("/a.bin", f"bytes={kept}-")]
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert tree(tmp_path) == ["a.bin"]


def start_of_download(folder: Path, body: bytes, version: str = '"one"', total: int | None = None) -> Path:
    (folder / "a.bin.part").write_bytes(body)
    (folder / "a.bin.part.json").write_text(json.dumps({"version": version, "total": len(BODY) if total is None else total}))
    return folder / "a.bin"


def test_server_that_ignores_ranges_sends_all_again(tmp_path, web):
    web.files["/a.bin"], web.ranges = BODY, False
    path = start_of_download(tmp_path, b"x" * 1000)
    download(f"{web.url}/a.bin", path)
    assert (web.seen, path.read_bytes()) == ([("/a.bin", "bytes=1000-")], BODY)


def test_file_that_has_changed_meanwhile_is_fetched_anew(tmp_path, web):
    web.files["/a.bin"] = BODY
    path = start_of_download(tmp_path, b"old" * 100, version='"zero"')
    download(f"{web.url}/a.bin", path)
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("case", ["another range", "another length"])
def test_answer_that_does_not_fit_what_is_there_begins_anew(tmp_path, web, case):
    web.files["/a.bin"], web.wrong_range = BODY, case == "another range"
    path = start_of_download(tmp_path, BODY[:1000], total=len(BODY) + (case == "another length"))
    download(f"{web.url}/a.bin", path)
    assert (web.seen, path.read_bytes()) == ([("/a.bin", "bytes=1000-"), ("/a.bin", None)], BODY)


def test_part_of_unknown_origin_is_not_trusted(tmp_path, web):
    web.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(b"what is this")
    download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert (web.seen, (tmp_path / "a.bin").read_bytes()) == ([("/a.bin", None)], BODY)


def test_whole_part_needs_no_request(tmp_path, web):
    path = start_of_download(tmp_path, BODY)
    download(f"{web.url}/a.bin", path)
    assert (web.seen, path.read_bytes()) == ([], BODY)


def test_last_modified_serves_where_there_is_no_strong_etag(tmp_path, web):
    web.files["/a.bin"], web.break_after = BODY, [100_000, 0, 0, 0]
    web.headers = {"ETag": 'W/"weak"', "Last-Modified": "Fri, 01 Feb 2019 00:00:00 GMT"}
    message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin"))
    assert json.loads((tmp_path / "a.bin.part.json").read_text()) == {"version": "Fri, 01 Feb 2019 00:00:00 GMT", "total": len(BODY)}


def test_answer_that_is_compressed_all_the_same(tmp_path, web):
    web.files["/a.csv"], web.headers = gzip.compress(BODY), {"Content-Encoding": "gzip"}
    download(f"{web.url}/a.csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_file_of_unknown_length_is_begun_anew_after_a_break(tmp_path, web):
    data = gzip.compress(os.urandom(200_000))
    web.files["/a.csv"], web.headers, web.break_after = data, {"Content-Encoding": "gzip"}, [100_000]
    download(f"{web.url}/a.csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == gzip.decompress(data)
    assert web.seen == [("/a.csv", None), ("/a.csv", None)]


def test_part_that_nobody_asked_for(tmp_path, web):
    web.files["/a.bin"], web.start = BODY, 1000
    found = message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin"))
    assert found == f"{web.url.removeprefix('http://')} answered 206 Partial Content for a.bin"
    assert tree(tmp_path) == []


def test_less_than_was_announced_is_no_file(tmp_path, web):
    web.files["/a.bin"], web.extra_length = BODY, 100
    assert "the connection broke 4 times" in message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin"))
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("kept", [0, 1000])
def test_web_page_instead_of_the_archive(tmp_path, web, kept):
    web.files["/a.bin"], web.content_type, web.ranges = b"<html>Google Drive can't scan this file for viruses", "text/html; charset=utf-8", False
    path = start_of_download(tmp_path, BODY[:kept]) if kept else tmp_path / "a.bin"
    found = message(lambda: download(f"{web.url}/a.bin", path))
    assert found == f"{web.url.removeprefix('http://')} answered with a web page instead of a.bin"
    assert not path.exists()
    assert not kept or (tmp_path / "a.bin.part").stat().st_size == kept  # a quota page does not cost what was fetched before


def test_something_else_than_a_zip(tmp_path, web):
    web.files["/a.zip"] = b'{"error": "quota"}'
    found = message(lambda: download(f"{web.url}/a.zip", tmp_path / "a.zip"))
    assert found == f"{web.url.removeprefix('http://')} sent something else than a zip as a.zip"
    assert tree(tmp_path) == []


def test_size_that_cannot_be_right(tmp_path, web):
    web.files["/a.bin"] = BODY
    found = message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin", 400_000))
    assert found == "a.bin has 307,200 bytes where about 400,000 were expected"
    assert tree(tmp_path) == []
    download(f"{web.url}/a.bin", tmp_path / "a.bin", 310_000)


@pytest.mark.parametrize("kept", [0, 1000])
def test_server_that_refuses(tmp_path, web, kept):
    web.status = 503
    path = start_of_download(tmp_path, BODY[:kept]) if kept else tmp_path / "a.bin"
    found = message(lambda: download(f"{web.url}/a.bin", path))
    assert found == f"{web.url.removeprefix('http://')} answered 503 Service Unavailable for a.bin"
    assert not kept or (tmp_path / "a.bin.part").stat().st_size == kept


def test_server_that_is_not_there(tmp_path):
    found = message(lambda: download("http://127.0.0.1:9/a.bin", tmp_path / "a.bin"))
    assert found == "127.0.0.1:9 cannot be reached ([Errno 111] Connection refused)"


# Getting


def weeds_at(web: Web) -> Task:
    """DeepWeeds with its files on the local server: two images, and the label files of fold 0."""
    archive = zip_bytes({"20170914-100337-3.jpg": image_bytes(1, "JPEG"), "20170915-100337-3.jpg": image_bytes(2, "JPEG")})
    web.files = {
        "/images.zip": archive,
        "/labels.csv": b"Filename,Label,Species\n20170914-100337-3.jpg,0,Chinee apple\n20170915-100337-3.jpg,8,Negative\n",
        "/train_subset0.csv": b"Filename,Label\n20170914-100337-3.jpg,0\n",
        "/val_subset0.csv": b"Filename,Label\n20170915-100337-3.jpg,8\n",
    }
    files = tuple((web.url + path, path[1:]) for path in web.files)
    return replace(WEEDS, sources=(Source("the local server", files, size=len(archive)),))


def test_get_files(tmp_path, web):
    task, events = weeds_at(web), []
    target = get_data(task, str(tmp_path), events.append)
    assert tree(target) == [
        "images/20170914-100337-3.jpg", "images/20170915-100337-3.jpg", "labels/labels.csv", "labels/train_subset0.csv", "labels/val_subset0.csv",
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == [".downloads", "weeds"]
    assert events[-1].note == f"what was downloaded is kept in {tmp_path}/.downloads/weeds; it may be deleted"


def test_get_goes_on_where_an_earlier_one_failed(tmp_path, web):
    task = weeds_at(web)
    labels = web.files.pop("/val_subset0.csv")
    host = web.url.removeprefix("http://")
    with pytest.raises(DataError) as caught:
        get_data(task, str(tmp_path))
    assert caught.value.message == (f"the images of task 'weeds' cannot be downloaded: the local server: {host} answered 404 Not Found for val_subset0.csv")
    assert caught.value.hint == (
        "Download images.zip and the folder labels by the links on https://github.com/AlexOlsen/DeepWeeds, then: tlfast data import weeds PATH"
    )
    assert os.listdir(tmp_path) == [".downloads"]
    web.files["/val_subset0.csv"] = labels
    web.seen.clear()
    assert get_data(task, str(tmp_path)) == tmp_path / "weeds"
    assert web.seen == [("/val_subset0.csv", None)]


def test_next_source_is_tried_and_every_reason_named(tmp_path, web):
    good = weeds_at(web).sources[0]
    gone = Source("the lost server", ((f"{web.url}/gone.zip", "images.zip"),))
    assert get_data(replace(WEEDS, sources=(gone, good)), str(tmp_path)) == tmp_path / "weeds"
    closed = Source("the closed server", (("http://127.0.0.1:9/images.zip", "images.zip"),))
    found = message(lambda: get_data(replace(WEEDS, sources=(gone, closed)), str(tmp_path / "b")))
    assert found == (
        f"the images of task 'weeds' cannot be downloaded: the lost server: {web.url.removeprefix('http://')} answered 404 Not Found for images.zip; "
        "the closed server: 127.0.0.1:9 cannot be reached ([Errno 111] Connection refused)"
    )


def test_get_for_a_task_without_sources(tmp_path):
    with pytest.raises(UsageError) as caught:
        get_data(DIGITS, str(tmp_path))
    assert (caught.value.message, caught.value.hint) == ("task 'digits' has nothing to download", "They are made on first use: tlfast train digits")
    with pytest.raises(UsageError) as caught:
        get_data(Task("pets", "pets"), str(tmp_path))
    assert caught.value.hint == "Train on images of your own: --data PATH"


# The hub


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
        ({"README.md": b""}, "some/faces has no parquet conversion"),
        ({"default/partial-train/0000.parquet": b""}, "'partial-train' of some/faces is not a part: train, valid or test"),
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
            "0000.parquet has no column of images with a column of named classes; it has: image, label",
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


def test_hub_that_is_not_there_fails_at_once(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert message(lambda: get_data(FER, str(tmp_path))) == (
        "the images of task 'fer' cannot be downloaded: Hugging Face SmolVEncoder/fer2013: [Errno 111] Connection refused; "
        "Hugging Face Jeneral/fer-2013: [Errno 111] Connection refused"
    )


def test_nothing_heavy_is_imported():
    heavy = {"torch", "fastai", "timm", "pandas", "matplotlib", "sklearn", "pyarrow", "requests", "huggingface_hub"}
    code = f"import sys, tlfast.data.sources; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
