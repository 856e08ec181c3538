"""Downloads: interrupted, changed, refused."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tests.helpers.files import message, tree
from tlfast.core.events import Event
from tlfast.data.download import download

BODY = bytes(range(256)) * 1200  # 307,200 bytes: several chunks


def test_download(tmp_path, web):
    web.files["/a.bin"] = BODY
    events: list[Event] = []
    download(f"{web.url}/a.bin", tmp_path / "kept" / "a.bin", len(BODY), events.append)
    assert (tmp_path / "kept" / "a.bin").read_bytes() == BODY
    assert tree(tmp_path) == ["kept/a.bin"]
    assert (events[-1].phase, events[-1].done, events[-1].total) == ("downloading a.bin", len(BODY), len(BODY))


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("", " answered 404 Not Found for a.bin"),
        ("127.0.0.1:9", " cannot be reached ([Errno 111] Connection refused)"),
        ("127.0.0.1:99999", " cannot be reached (Failed to parse: http://127.0.0.1:99999/a.bin)"),
    ],
)
def test_passwords_of_addresses_are_not_shown(tmp_path, web, host, found):
    host = host or web.url.removeprefix("http://")
    assert message(lambda: download(f"http://me:s@cret@{host}/a.bin", tmp_path / "a.bin")) == host + found


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
    assert found == f"{host}: the connection broke 4 times; {kept:,} bytes are saved for the next attempt"
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
    assert found == f"{web.url.removeprefix('http://')} sent a file that is not a zip as a.zip"
    assert tree(tmp_path) == []


def test_size_that_cannot_be_right(tmp_path, web):
    web.files["/a.bin"] = BODY
    found = message(lambda: download(f"{web.url}/a.bin", tmp_path / "a.bin", 400_000))
    assert found == "a.bin has 307,200 bytes, but about 400,000 were expected"
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
