"""Where images come from: located, drawn, imported from folders and zips, downloaded from servers that misbehave, read from a hub.

Every server is a local stand-in.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.files import image_bytes, message, tree, zip_bytes
from tests.helpers.paths import ROOT
from tests.helpers.web import Web
from tlfast import tasks
from tlfast.core.errors import DataError, UsageError
from tlfast.core.events import Event, Note, Progress
from tlfast.core.files import lock_file, lock_folder
from tlfast.data import archives
from tlfast.data.sources import LOCK, get_data, import_data, locate
from tlfast.data.task import Source, Task

FER, WEEDS, DIGITS = (tasks.registered_tasks()[name] for name in ("fer", "weeds", "digits"))


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
    assert caught.value.hint == "Give --data a folder of class folders, a zip of one, or a CSV or parquet file"


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
        "download them: tlfast data get fer; or import existing files: tlfast data import fer SRC; "
        "or use a folder, zip, CSV or parquet file in place: --data PATH"
    )


def test_no_images_of_a_task_that_can_only_be_given_some(tmp_path):
    with pytest.raises(DataError) as caught:
        locate(Task("pets", "pets"), "", str(tmp_path))
    assert caught.value.hint == "use a folder, zip, CSV or parquet file in place: --data PATH"


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
    assert found == f"{tmp_path}/data/digits cannot be written: File exists ({tmp_path}/data)"


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
        assert caught.value.hint == "Existing data is not changed; rename or remove the folder first"
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
    assert caught.value.message == "task 'digits' has no import"
    assert caught.value.hint == "Train on your images in place: --data PATH"


def test_import_of_another_kind_of_file(tmp_path):
    (tmp_path / "fer2013.7z").write_bytes(b"7z")
    found = message(lambda: import_data(FER, str(tmp_path / "fer2013.7z"), str(tmp_path / "data")), UsageError)
    assert found == f"{tmp_path}/fer2013.7z is not a folder, a .zip, a .tar.gz or a .csv"
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
    assert re.fullmatch(rf"{tmp_path}/data/fer cannot be written: No space left on device \({tmp_path}/data/\.fer\.\w+\.partial/2\.png\)", found)
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
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 1_000_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 100)
    found = message(lambda: import_data(FER, str(archive), str(tmp_path / "data")))
    assert found == f"faces.zip: {archive.stat().st_size:,} bytes would become 2,000,000; nothing was imported"
    monkeypatch.setattr(archives, "MAX_RATIO", 1_000_000)
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1_999_999)
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
    assert events[-1].note == f"the downloaded files are in {tmp_path}/.downloads/weeds and may be deleted"


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked on Windows")
def test_two_downloads_at_once_do_not_write_the_same_files(tmp_path, web):
    task = weeds_at(web)
    (tmp_path / ".downloads" / "weeds").mkdir(parents=True)
    with lock_file(tmp_path / ".downloads" / "weeds" / LOCK, RuntimeError()), pytest.raises(DataError) as caught:
        get_data(task, str(tmp_path))
    assert "another process is downloading the images of task 'weeds'" in caught.value.message and not web.seen
    assert get_data(task, str(tmp_path)) == tmp_path / "weeds"


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


def test_an_earlier_download_is_named(tmp_path, web):
    get_data(weeds_at(web), str(tmp_path))
    (tmp_path / "weeds").rename(tmp_path / "moved")
    notes: list[Event] = []
    get_data(weeds_at(web), str(tmp_path), on_event=notes.append)
    assert [event.note for event in notes if isinstance(event, Note) and event.phase == "download"] == [
        f"4 of 4 files are those of an earlier download; delete {tmp_path}/.downloads/weeds to download them again"
    ]


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked on Windows")
def test_folders_of_killed_imports_are_removed_and_those_in_use_stay(tmp_path, faces):
    killed, used, new, mine = (
        tmp_path / "data" / name for name in (".fer.abcdefgh.partial", ".fer.ijklmnop.partial", ".fer.qrstuvwx.partial", ".fer.mine.partial")
    )
    for folder in (killed, used, new, mine):
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    for folder in (killed, used, mine):
        os.utime(folder, (0, 0))
    with lock_folder(used):
        import_data(FER, str(faces), str(tmp_path / "data"))
    assert sorted(os.listdir(tmp_path / "data")) == sorted([used.name, new.name, mine.name, "fer"])


def test_next_source_is_tried_and_every_reason_named(tmp_path, web):
    good = weeds_at(web).sources[0]
    gone = Source("the lost server", ((f"{web.url}/gone.zip", "images.zip"),))
    assert get_data(replace(WEEDS, sources=(gone, good)), str(tmp_path)) == tmp_path / "weeds"
    page = Source("a server with a page", ((f"{web.url}/labels.csv", "page.html"),))  # not an archive
    assert get_data(replace(WEEDS, sources=(page, good)), str(tmp_path / "c")) == tmp_path / "c" / "weeds"
    closed = Source("the closed server", (("http://127.0.0.1:9/images.zip", "images.zip"),))
    found = message(lambda: get_data(replace(WEEDS, sources=(gone, closed)), str(tmp_path / "b")))
    assert found == (
        f"the images of task 'weeds' cannot be downloaded: the lost server: {web.url.removeprefix('http://')} answered 404 Not Found for images.zip; "
        "the closed server: 127.0.0.1:9 cannot be reached ([Errno 111] Connection refused)"
    )


def test_the_password_of_a_given_address_is_not_shown(tmp_path, web):
    host, secret = web.url.removeprefix("http://"), web.url.replace("://", "://me:secret@")
    found = message(lambda: get_data(WEEDS, str(tmp_path), address=f"{secret}/w.zip"))
    assert found == f"the images of task 'weeds' cannot be downloaded: {web.url}/w.zip: {host} answered 404 Not Found for w.zip"
    found = message(lambda: get_data(WEEDS, str(tmp_path), address=f"{secret}/w.png"), UsageError)
    assert found == f"--from {web.url}/w.png: not an http(s) address of a zip or tarball"


def test_get_for_a_task_without_sources(tmp_path):
    with pytest.raises(UsageError) as caught:
        get_data(DIGITS, str(tmp_path))
    assert (caught.value.message, caught.value.hint) == ("task 'digits' has no download", "Its images are generated on first use: tlfast train digits")
    with pytest.raises(UsageError) as caught:
        get_data(Task("pets", "pets"), str(tmp_path))
    assert caught.value.hint == "Train on your images: --data PATH"


def test_nothing_heavy_is_imported():
    heavy = {"torch", "fastai", "timm", "pandas", "matplotlib", "sklearn", "pyarrow", "requests", "huggingface_hub"}
    code = f"import sys, tlfast.data.sources; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
