"""What names of images are found, and in which order."""

from __future__ import annotations

import os
import tarfile
import zipfile

import pytest

from tests.helpers.files import image_bytes
from tlfast.core.errors import DataError, UsageError
from tlfast.data import discovery
from tlfast.data.left_out import LeftOut
from tlfast.testing import draw_image


def test_folders_patterns_and_plain_names(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_image(tmp_path / "[odd] name.png", (0, 0, 0), 1)
    draw_image(folder / ".hidden" / "1.png", (0, 0, 0), 1)
    assert len(list(discovery.gather_sources(["pictures"]))) == 36
    assert list(discovery.gather_sources(["pictures/red/1*.png"])) == ["pictures/red/1.png", "pictures/red/10.png", "pictures/red/11.png"]
    assert list(discovery.gather_sources(["[odd] name.png", "missing.png", "http://a/b.jpg"])) == ["[odd] name.png", "missing.png", "http://a/b.jpg"]
    (tmp_path / "void").mkdir()
    assert list(discovery.gather_sources(["void", "*.gif"])) == []


def test_files_that_are_no_images_are_counted_by_suffix(folder, tmp_path):
    (folder / "red" / "notes.txt").write_text("red")
    (folder / "red" / "LICENSE").write_text("free")
    (folder / "blue" / "notes.TXT").write_text("blue")
    (folder / ".hidden.txt").write_text("")
    draw_image(tmp_path / "x.png", (0, 0, 0), 1)
    (tmp_path / "x.png").rename(folder / "red" / "photo")
    os.mkfifo(folder / "red" / "pipe")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(folder))
    in_folder, in_zip = LeftOut(), LeftOut()
    assert str(folder / "red" / "photo") in set(discovery.walk_images(folder, in_folder))
    assert "red/photo" in discovery.list_members(tmp_path / "all.zip", in_zip)
    assert in_folder.files == {".txt": 2, "no suffix": 2}
    assert in_zip.files == {".txt": 2, "no suffix": 1}


def test_stdin_is_a_list():
    assert list(discovery.gather_sources(["-", "b.png"], stdin=["\ufeff a.png\n", "\n", "https://x/y\n"])) == ["a.png", "https://x/y", "b.png"]


@pytest.mark.parametrize("text", ["path,n\na.png,1\n\nhttps://x/y.png,2\n", "\ufeffpath\na.png\nhttps://x/y.png\n", "n\tpath\n1\ta.png\n2\thttps://x/y.png\n"])
def test_a_column_of_a_csv_file(tmp_path, text):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert list(discovery.gather_sources([str(tmp_path / "list.csv")])) == [str(tmp_path / "a.png"), "https://x/y.png"]


def test_wrong_columns_and_archives(tmp_path):
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(UsageError, match="list.csv has no column 'path'; it has: file"):
        list(discovery.gather_sources([str(tmp_path / "list.csv")]))
    (tmp_path / "list.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        list(discovery.gather_sources([str(tmp_path / "list.csv")]))
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is not a zip that can be read"):
        list(discovery.gather_sources([str(tmp_path / "a.zip")]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../b/1.png", "points outside the archive"),
        ("b\\..\\..\\1.png", "points outside the archive"),
        ("/b/1.png", "has an absolute path"),
        ("C:/b/1.png", "has an absolute path"),
    ],
)
def test_a_zip_that_names_a_place_outside_of_it_is_not_read(tmp_path, name, reason):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b/1.png", b"")
        file.writestr(name, b"")
    with pytest.raises(DataError, match=f"{reason}.*nothing was read"):
        discovery.list_members(tmp_path / "a.zip")


def test_a_row_without_a_path_is_an_error(tmp_path):
    (tmp_path / "list.csv").write_text('path,note\na.png,x\n"",y\n')
    with pytest.raises(DataError, match=r"list\.csv line 3: no path"):
        list(discovery.gather_sources([str(tmp_path / "list.csv")]))


def test_a_column_that_is_used_occurs_once(tmp_path):
    (tmp_path / "list.csv").write_text("path,path,x,x\na.png,b.png,1,2\n")
    with pytest.raises(DataError, match=r"list\.csv has 2 columns 'path'"):
        list(discovery.gather_sources([str(tmp_path / "list.csv")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_occurs_once_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for content in (b"1", b"2"):
            archive.writestr("blue/0.png", content)
    with pytest.raises(DataError, match=r"a\.zip has 'blue/0\.png' more than once"):
        discovery.list_members(tmp_path / "a.zip")


def test_an_encrypted_zip_is_one_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("red/0.png", image_bytes())
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip is encrypted") as caught:
        discovery.list_members(tmp_path / "a.zip")
    assert "password" in caught.value.hint


def test_output_of_tlfast_and_links_to_folders_are_named_and_left_out(folder, tmp_path):
    for run in ("exports/pictures/one", "pictures/two"):  # with --out exports, and with --out set to the folder above the images
        draw_image(folder / run / "plots" / "calibration.png", (0, 0, 0), 1)
        (folder / run / "run.json").write_text("{}")
    draw_image(folder / "other" / "pictures" / "lr-find.png", (0, 0, 0), 1)
    draw_image(folder / ".purple" / "1.png", (0, 0, 0), 1)
    (folder / ".git").mkdir()
    (folder / "linked").symlink_to(folder / "red")
    (folder / "blue" / "loop").symlink_to(folder)
    left_out = LeftOut()
    assert len(list(discovery.walk_images(folder, left_out, out=str(folder / "other")))) == 36
    assert left_out.describe(f"{folder}/") == [
        "links to folders are not followed: linked, blue/loop",
        "folders whose names begin with a dot are left out, with their images: .purple",
        "folders with runs of tlfast are left out: other, exports/pictures/one, pictures/two",
    ]


def test_hidden_folders_of_archives_are_named_and_left_out(folder, tmp_path):
    draw_image(folder / ".purple" / "1.png", (0, 0, 0), 1)
    draw_image(folder / "red" / ".thumbnails" / "1.png", (0, 0, 0), 1)
    draw_image(folder / "red" / ".photo.png", (0, 0, 0), 1)
    (folder / "red" / "._photo.png").write_bytes(b"")
    (folder / ".idea").mkdir()
    (folder / ".idea" / "notes.txt").write_text("")
    archive, tar = tmp_path / "all.zip", tmp_path / "all.tar"
    with zipfile.ZipFile(archive, "w") as file, tarfile.open(tar, "w") as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            file.write(path, path.relative_to(tmp_path))
            packed.add(path, path.relative_to(tmp_path))
    hidden = "folders whose names begin with a dot are left out, with their images: pictures/.purple, pictures/red/.thumbnails"
    for source in (archive, tar):
        left_out = LeftOut()
        assert len(list(discovery.gather_sources([str(source)], left_out=left_out))) == 36
        assert left_out.describe(f"{source}!/") == ["images whose names begin with a dot are left out: 1", hidden]


def test_patterns_do_not_follow_links_in_a_circle(folder, tmp_path, monkeypatch):
    (folder / "blue" / "up").symlink_to("..")
    (folder / "all").symlink_to(folder)
    draw_image(folder / ".hidden" / "1.png", (0, 0, 0), 1)
    monkeypatch.chdir(tmp_path)
    for pattern in ("pictures/**", "pictures/**/*.png", "**/*.png", str(tmp_path / "pic*" / "**" / "*.png")):
        assert len(list(discovery.gather_sources([pattern]))) == 36
    assert len(list(discovery.gather_sources(["pictures/**/red/*.png"]))) == 12


def fail_to_walk(monkeypatch, error):
    """Let `os.walk` report an error for one of the folders."""
    walk = os.walk

    def report(root, onerror):
        onerror(error)
        return walk(root)

    monkeypatch.setattr(os, "walk", report)


def test_a_folder_that_vanishes_while_it_is_read_is_no_error(folder, monkeypatch):
    fail_to_walk(monkeypatch, FileNotFoundError(2, "No such file or directory", str(folder / "gone")))
    assert len(list(discovery.walk_images(folder))) == 36


def test_a_folder_that_cannot_be_read_is_an_error(folder, monkeypatch):
    fail_to_walk(monkeypatch, PermissionError(13, "Permission denied", str(folder / "red")))
    with pytest.raises(DataError, match=r"red cannot be read: Permission denied"):
        list(discovery.walk_images(folder))


def test_lines_of_errors_are_those_of_the_file(tmp_path):
    (tmp_path / "list.csv").write_text('path,note\n\na.png,"two\nlines"\n\n,x\n')
    with pytest.raises(DataError, match=r"list\.csv line 6: no path"):
        list(discovery.gather_sources([str(tmp_path / "list.csv")]))


def test_a_zip_with_a_member_without_a_name(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", b"")
    path.write_bytes(path.read_bytes().replace(b"x", b"\0"))  # a name ends at the first of these
    try:
        assert discovery.list_members(path) == []
    except DataError as error:
        assert "is not a zip that can be read" in error.message
