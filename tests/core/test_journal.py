"""The journal of a training, and the name that it takes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.interruption import Killed
from tlfast.core import files
from tlfast.core import journal as journal_module
from tlfast.core.errors import RunError, UsageError
from tlfast.core.journal import Journal


def test_a_kill_while_a_name_is_taken_leaves_no_name(tmp_path, monkeypatch):
    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "rename", kill)
        patch.setattr(journal_module.shutil, "rmtree", lambda *args, **options: None)
        with journal_module.open_journal(str(tmp_path), "a", "mine", {}):
            pass
    (left,) = (tmp_path / "a").iterdir()
    assert left.suffix == journal_module.CLAIM
    journal_module.check_name_free(str(tmp_path), "a", "mine")
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}) as journal:
        assert journal.run_id == "mine" and left.exists()  # another may be about to take its name
    os.utime(left, (0, 0))
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}), journal_module.open_journal(str(tmp_path), "a", "mine", {}) as second:
        assert second.run_id == "mine-2" and not left.exists()
    assert not any((tmp_path / "a").iterdir())


def test_a_name_is_taken_from_the_beginning(tmp_path):
    with journal_module.open_journal(str(tmp_path), "t", "a", {}) as first, journal_module.open_journal(str(tmp_path), "t", "a", {}) as second:
        assert (first.run_id, second.run_id) == ("a", "a-2")
    assert list((tmp_path / "t").iterdir()) == []


def test_the_name_of_a_running_training_cannot_be_resumed(tmp_path):
    with journal_module.open_journal(str(tmp_path), "t", "a", {}), pytest.raises(UsageError, match="named 'a' is running") as error:
        journal_module.check_name_free(str(tmp_path), "t", "a")
    assert "--resume" not in error.value.hint
    with pytest.raises(KeyboardInterrupt), journal_module.open_journal(str(tmp_path), "t", "a", {}):
        raise KeyboardInterrupt
    with pytest.raises(UsageError, match="named 'a' is unfinished") as error:
        journal_module.check_name_free(str(tmp_path), "t", "a")
    assert "--resume a" in error.value.hint


def test_an_open_file_on_nfs_leaves_no_folder_and_takes_no_name(tmp_path, monkeypatch):
    removed = shutil.rmtree

    def remove_but_open_files(folder, *args, **options):  # as NFS: a file that is open gets another name in the same folder
        lock = Path(folder, journal_module.LOCK)
        if lock.exists():
            lock.rename(lock.with_name(".nfs1"))
        else:
            removed(folder, *args, **options)

    @contextmanager
    def lock(path, *args):
        path.touch()
        try:
            yield
        finally:
            for file in tmp_path.rglob(".nfs1"):
                file.unlink()

    monkeypatch.setattr(journal_module, "lock_file", lock)
    monkeypatch.setattr(journal_module.shutil, "rmtree", remove_but_open_files)
    for error in (None, ValueError):
        with suppress(ValueError), journal_module.open_journal(str(tmp_path), "t", "mine", {}):
            if error:
                raise error
        assert not list(tmp_path.rglob("mine*"))
    (tmp_path / "t" / "mine.unfinished").mkdir(parents=True)  # of an earlier version
    journal_module.check_name_free(str(tmp_path), "t", "mine")


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked on Windows")
def test_a_list_of_trainings_disturbs_none(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt), journal_module.open_journal(str(tmp_path), "t", "a", {}):
        raise KeyboardInterrupt
    folder = tmp_path / "t" / "a.unfinished"
    monkeypatch.setattr(journal_module, "CHECK_SECONDS", 60.0)
    with (folder / "lock").open("r+b") as other:
        files.fcntl.flock(other, files.fcntl.LOCK_SH)  # another process lists the trainings
        assert journal_module.list_interrupted_folders(str(tmp_path)) == [folder]
        threading.Timer(0.2, other.close).start()
        with pytest.raises(KeyboardInterrupt), journal_module.open_journal(str(tmp_path), "t", "b", {}, resume="a") as journal:
            assert journal.run_id == "a" and journal_module.list_interrupted_folders(str(tmp_path)) == []
            raise KeyboardInterrupt
    (folder / "lock").unlink()
    assert journal_module.list_interrupted_folders(str(tmp_path)) == [folder] and not (folder / "lock").exists()


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked on Windows")
def test_a_new_training_is_locked_before_others_can_see_it(tmp_path, monkeypatch):
    move, locked = files.move_to_free_name, []

    def check_and_move(folder, *names):
        locked.append(files.is_file_locked(folder / "lock"))
        return move(folder, *names)

    monkeypatch.setattr(journal_module, "move_to_free_name", check_and_move)
    with journal_module.open_journal(str(tmp_path), "t", "a", {}):
        assert locked == [True] and journal_module.list_interrupted_folders(str(tmp_path)) == []


def test_a_journal_says_a_thing_once(tmp_path):
    journal = Journal(tmp_path)
    assert journal.once("a", lambda: [1]) == [1] and journal.once("a", lambda: [2]) == [1]
    assert json.loads((tmp_path / "journal.json").read_text())["a"] == [1]
    assert Journal().once("a", lambda: 3) == 3
    for name, value in {"epochs": 0, "planned": {}, "b": 0}.items():
        assert journal.once(name, lambda value=value: value) == value and journal.once(name, lambda: "other") == value


def test_the_file_keeps_its_keys_and_others_are_read_again(tmp_path):
    journal = Journal(tmp_path, journal_module.Facts(settings={"task": "t"}))
    journal.facts.halvings += 1
    for name, value in {"epochs": 7, "precision": "off", "images": "", "rates of head": {"suggestion": 0.1}}.items():
        assert journal.once(name, lambda value=value: value) == value and journal.once(name, lambda: "other") == value
    values = json.loads((tmp_path / "journal.json").read_text())
    assert values.pop("seconds") > 0
    assert values == {"settings": {"task": "t"}, "halvings": 1, "epochs": 7, "precision": "off", "images": "", "rates of head": {"suggestion": 0.1}}
    facts = journal_module.read_facts(tmp_path)
    assert (facts.halvings, facts.epochs, facts.others) == (1, 7, {"rates of head": {"suggestion": 0.1}})


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_damaged_journal_is_named(tmp_path, text):
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(RunError, match="is damaged"):
        journal_module.read_facts(tmp_path)


def test_a_training_of_other_images_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt), journal_module.open_journal(str(tmp_path), "old", "a", {"data": "/old"}):
        raise KeyboardInterrupt
    with pytest.raises(UsageError, match="--resume a: this training is one of old, not of new") as error:
        journal_module.find(str(tmp_path), "new", "a")
    assert "/old" in error.value.hint


def test_a_training_without_a_path_of_images_is_named(tmp_path):
    with pytest.raises(KeyboardInterrupt), journal_module.open_journal(str(tmp_path), "old", "a", {"data": ""}):
        raise KeyboardInterrupt
    with pytest.raises(UsageError) as error:
        journal_module.find(str(tmp_path), "new", "a")
    assert error.value.hint == "Its command is listed by: tlfast runs --interrupted"
    assert journal_module.list_unfinished(str(tmp_path), "old") and not journal_module.list_unfinished(str(tmp_path), "**")


def test_the_end_of_a_training_leaves_a_run_of_a_longer_name(tmp_path):
    for name in (".mine.abcdefgh.partial", ".mine.2.abcdefgh.partial"):
        (tmp_path / "a" / name).mkdir(parents=True)
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".mine.2.abcdefgh.partial"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with journal_module.open_journal(str(tmp_path), "a", "mine", {}) as journal:
        assert journal.run_id == "mine"
    with files.lock_folder(tmp_path), files.wait_for_lock(tmp_path / "lock"):
        pass
