"""What is kept for later runs: listed, removed, and nothing else touched."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.command_line import TINY
from tests.helpers.paths import ROOT
from tlfast.core import DataError, UsageError, cache


def kept(name="a" * 24, kind="stores", age=0.0):
    with cache.write_entry(kind, name) as (folder, about):
        (folder / "data").write_bytes(b"x" * 1000)
        about["n"] = 1
    for path in (cache.find_root() / kind / name).iterdir():
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    return cache.find_root() / kind / name


def test_a_run_leaves_entries_and_clearing_them_is_harmless(cli, folder):
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "a", "--no-onnx", "--quiet").code == 0
    listed = cli("cache", "list", "--json").json
    assert {entry["kind"] for entry in listed} >= {"stores", "features"} and all(entry["bytes"] > 0 for entry in listed)
    cleared = cli("cache", "clear", "--json").json
    assert {entry["folder"] for entry in cleared} == {entry["folder"] for entry in listed}
    assert cli("cache", "list").out.strip() == "cached: 0 entries, 0.0 MB" and not cache.list_entries()
    assert cli("train", folder, *TINY, "--epochs", 1, "--name", "b", "--no-onnx", "--quiet").code == 0


def test_only_a_kind_or_what_is_old(cli):
    old, new, other = kept(age=10 * 86_400), kept("b" * 24), kept("c" * 24, "features", age=10 * 86_400)
    assert [entry["folder"] for entry in cli("cache", "clear", "--days", 5, "--kind", "stores", "--json").json] == [str(old)]
    assert not old.exists() and new.is_dir() and other.is_dir()
    assert "removed: 2 entries" in cli("cache", "clear").out
    assert not new.exists() and not other.exists()


def test_unpacked_images_are_removed_on_request_only(cli):
    """Tables and runs name their files."""
    unpacked, other = kept(kind="unpacked"), kept("b" * 24)
    cleared = cli("cache", "clear")
    assert "removed: 1 entries" in cleared.out and unpacked.is_dir() and not other.exists()
    assert "unpacked images stay, because tables and runs name them; --kind unpacked removes them" in " ".join(cleared.err.split())
    assert [entry["kind"] for entry in cli("cache", "clear", "--kind", "unpacked", "--json").json] == ["unpacked"]


def test_an_entry_has_the_permissions_of_its_folder(cache_folder):
    (cache_folder / "stores").mkdir(parents=True)
    (cache_folder / "stores").chmod(0o775)
    assert kept().stat().st_mode & 0o777 == 0o775


def test_an_entry_of_another_user(cache_folder, monkeypatch):
    folder = kept()
    (folder / cache.ABOUT).unlink()  # as if it could not be read
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=f"{folder} cannot be read") as caught:
        cache.get_or_create("stores", folder.name, lambda folder: pytest.fail("nothing is computed"))
    assert "Change its permissions" in caught.value.hint
    is_file = Path.is_file

    def refuse(path):
        if path.name == cache.ABOUT:
            raise PermissionError(path)
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert cache.list_entries() == []


@pytest.mark.parametrize(("kind", "helps"), [("stores", True), ("features", True), ("unpacked", False), ("trainings", False)])
def test_a_full_disk_names_the_options_that_help(cache_folder, kind, helps):
    def fill(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match=f"cannot write {kind} to the cache") as caught:
        cache.get_or_create(kind, "a" * 24, fill)
    assert ("--store" in caught.value.hint) == helps


def test_a_damaged_entry_is_replaced(cache_folder):
    (kept() / "data").write_bytes(b"")
    kept()
    assert cache.find("stores", "a" * 24) and [path.name for path in (cache_folder / "stores").iterdir()] == ["a" * 24]


def test_nothing_of_the_users_is_removed(cli, tmp_path):
    mine = cache.find_root() / "stores" / "letters"
    mine.mkdir(parents=True)
    (mine / "about.json").write_text("{}")
    (cache.find_root() / "note.txt").write_text("mine")
    bare = cache.find_root() / "stores" / ("d" * 24)  # our name, but not our content
    bare.mkdir()
    (bare / "photo.jpg").write_text("mine")
    link = cache.find_root() / "stores" / ("e" * 24)
    link.symlink_to(mine)
    assert cli("cache", "clear", "--json").json == []
    assert (mine / "about.json").exists() and (cache.find_root() / "note.txt").exists() and (bare / "photo.jpg").exists() and link.is_symlink()


def test_what_a_killed_command_left_goes_after_a_day(cli):
    left = cache.find_root() / "stores" / f".{'f' * 24}.abc"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x" * 10)
    assert cli("cache", "list", "--json").json[0]["kind"] == "unfinished"
    assert cli("cache", "clear", "--json").json == []
    for path in (left / "half", left):
        os.utime(path, (path.stat().st_atime - 2 * 86_400,) * 2)
    assert len(cli("cache", "clear", "--json").json) == 1 and not left.exists()


def test_of_two_makers_the_first_is_kept(cache_folder):
    with cache.write_entry("stores", "x") as (mine, _):
        (mine / "file").write_text("mine")
        with cache.write_entry("stores", "x") as (theirs, _):
            (theirs / "file").write_text("theirs")
    folder, about = cache.find("stores", "x")
    assert (folder / "file").read_text() == "theirs" and about["files"] == {"file": 6}
    assert [path.name for path in (cache_folder / "stores").iterdir()] == ["x"]


def test_facts_are_asked_for_once(cache_folder):
    asked = []

    def make():
        asked.append(1)
        return {"answer": 42}

    assert [cache.get_or_compute("timings", "x", make)["answer"] for _ in range(3)] == [42] * 3 and len(asked) == 1


def test_reading_an_entry_is_a_use():
    folder = kept(age=10 * 86_400)
    assert cache.list_entries()[0].used < time.time() - 9 * 86_400
    assert cache.find("stores", "a" * 24)
    assert cache.list_entries()[0].used > time.time() - 60 and not cache.clear(days=5) and folder.is_dir()


def test_only_what_is_gone_is_called_removed(monkeypatch):
    kept()
    monkeypatch.setattr(cache.shutil, "rmtree", lambda folder, ignore_errors: None)
    assert cache.clear() == []


def test_unknown_kinds_are_refused_and_those_of_earlier_versions_cleared(cli):
    outcome = cli("cache", "clear", "--kind", "feature")
    assert outcome.code == 2 and "unknown kind of cache entries 'feature'" in outcome.err and "Did you mean 'features'?" in outcome.err
    former = cache.find_root() / "former" / ("a" * 24)
    former.parent.mkdir(parents=True)
    kept().rename(former)
    assert [entry["folder"] for entry in cli("cache", "clear", "--kind", "former", "--json").json] == [str(former)]


def test_an_undeclared_kind_cannot_be_written():
    with pytest.raises(ValueError, match="letters is not declared in KINDS"), cache.write_entry("letters", "a" * 24):
        pass


def test_the_page_on_the_cache_lists_every_kind():
    page = (ROOT / "docs/reference/cache.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == cache.KINDS


def test_another_folder_is_the_cache_within_a_block(tmp_path):
    before = cache.find_root()
    with suppress(KeyboardInterrupt), cache.use_root(tmp_path / "other"):
        made = kept()
        raise KeyboardInterrupt
    assert made.is_relative_to(tmp_path / "other") and cache.find_root() == before and not cache.list_entries()


def test_processes_that_wait_for_each_other_make_an_entry_once(tmp_path, cache_folder):
    code = f"""
import time
from pathlib import Path
from tlfast.core import cache
cache.wait_for_others()
def fill(folder):
    with Path({str(tmp_path / "made")!r}).open("a") as file:
        file.write("x")
    time.sleep(1)
    (folder / "file").write_text("content")
    return {{"number": 1}}
folder, about = cache.get_or_create("stores", "0" * 24, fill)
assert about["number"] == 1 and (folder / "file").read_text() == "content"
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x" and not list(cache_folder.glob("*/*.lock"))


def test_no_kind_is_not_all_kinds(cli):
    kept()
    outcome = cli("cache", "clear", "--kind", "")
    assert outcome.code == 2 and "--kind is empty" in outcome.err and len(cache.list_entries()) == 1


def test_without_a_home_folder_the_cache_must_be_named(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TLFAST_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.raises(UsageError, match="no home folder") as caught:
        cache.find_root()
    assert "TLFAST_CACHE" in caught.value.hint
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache.find_root() == Path("/caches/tlfast")
