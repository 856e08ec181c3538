"""weeds: DeepWeeds as its authors publish it, with the official folds, or with labels.csv alone."""

from __future__ import annotations

import csv
import os
import re
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tlfast.core.errors import DataError, UsageError
from tlfast.data import load_table
from tlfast.data.sources import get_data, import_data
from tlfast.data.task import Source
from tlfast.tasks.resolve import resolve_settings
from tlfast.tasks.weeds import CLASSES, TASK, rows

DAYS = 6  # each class is photographed once on each day
PREFIXES = {"train": "train", "valid": "val", "test": "test"}


def names() -> dict[str, int]:
    """Return the label number of each of 54 images."""
    return {f"201709{day + 10}-1003{number:02d}-{day % 4}.jpg": number for number in range(9) for day in range(DAYS)}


def part_of(name: str, fold: int) -> str:
    """Divide by day: one day is the test part, one the valid part, and both move with the fold."""
    day = int(name[6:8]) - 10
    return {fold: "test", (fold + 1) % DAYS: "valid"}.get(day, "train")


def write_csv(path: Path, header: list[str], records: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *records])


def write_labels(folder: Path, folds: bool = True) -> None:
    species = [*CLASSES[:8], "Negatives"]  # as the authors spell it
    write_csv(folder / "labels.csv", ["Filename", "Label", "Species"], [(name, label, species[label]) for name, label in names().items()])
    for fold in range(5 if folds else 0):
        for part, prefix in PREFIXES.items():
            records = [(name, label) for name, label in names().items() if part_of(name, fold) == part]
            write_csv(folder / f"{prefix}_subset{fold}.csv", ["Filename", "Label"], records)


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, label in names().items():
        Image.new("RGB", (8, 8), (20 * label, 0, 0)).save(folder / name)


@pytest.fixture
def deepweeds(tmp_path: Path) -> Path:
    folder = tmp_path / "DeepWeeds"
    write_images(folder / "images")
    write_labels(folder / "labels")
    return folder


def by_name(root: Path, fold: int | None) -> dict[str, tuple[str, str]]:
    return {Path(row.path).name: (row.split, row.label) for row in rows(root, fold) or []}


@pytest.mark.parametrize("fold", range(5))
def test_rows_of_a_fold_are_exactly_the_official_ones(deepweeds, fold):
    assert by_name(deepweeds, fold) == {name: (part_of(name, fold), CLASSES[label]) for name, label in names().items()}


def test_rows_read_only_the_files_of_their_fold(deepweeds):
    for path in (deepweeds / "labels").glob("*_subset*.csv"):
        if not path.stem.endswith("2"):
            path.write_text("damaged")
    assert by_name(deepweeds, 2) == {name: (part_of(name, 2), CLASSES[label]) for name, label in names().items()}


def test_the_first_fold_is_the_default(deepweeds):
    assert rows(deepweeds, None) == rows(deepweeds, 0)


def test_rows_name_files_and_shooting_days(deepweeds):
    found = rows(deepweeds, 2) or []
    assert all(Path(row.path).is_file() for row in found)
    assert {row.group for row in found} == {f"201709{day + 10}" for day in range(DAYS)}


def test_the_table_takes_the_official_fold(deepweeds):
    table = load_table(TASK, resolve_settings(TASK, "partial", {"fold": 2}), deepweeds)
    assert table.classes == CLASSES
    assert {Path(row.path).name: row.split for row in table.rows} == {name: part_of(name, 2) for name in names()}


def test_import_of_the_folder(tmp_path, deepweeds):
    target = import_data(TASK, str(deepweeds), str(tmp_path / "data"))
    assert sorted(os.listdir(target / "images")) == sorted(names())
    assert sorted(os.listdir(target / "labels")) == sorted(["labels.csv", *(f"{p}_subset{f}.csv" for p in PREFIXES.values() for f in range(5))])
    assert by_name(target, 2) == by_name(deepweeds, 2)


def test_two_images_of_one_name(tmp_path, deepweeds):
    first = next((deepweeds / "images").iterdir())
    (deepweeds / "thumbs").mkdir()
    (deepweeds / "thumbs" / first.name).write_bytes(b"smaller")
    with pytest.raises(DataError, match=f"two different images would become images/{first.name}"):
        import_data(TASK, str(deepweeds), str(tmp_path / "data"))


def test_the_layout_of_the_github_mirror_is_read_in_place(deepweeds):
    wanted = by_name(deepweeds, 2)
    (deepweeds / "images").rename(deepweeds / "data")
    assert by_name(deepweeds, 2) == wanted
    assert all(Path(row.path).is_file() for row in rows(deepweeds, 2) or [])


@pytest.fixture
def tarball(tmp_path, deepweeds) -> Path:
    """The tarball of the GitHub mirror in small."""
    (deepweeds / "images").rename(deepweeds / "data")
    (deepweeds / "README.md").write_text("DeepWeeds")
    with tarfile.open(tmp_path / "mirror.tar.gz", "w:gz") as file:
        file.add(deepweeds, "deep_weeds-cb85c564")
    return tmp_path / "mirror.tar.gz"


def test_import_of_the_tarball(tmp_path, tarball):
    target = import_data(TASK, str(tarball), str(tmp_path / "root"))
    assert by_name(target, 2) == {name: (part_of(name, 2), CLASSES[label]) for name, label in names().items()}


def test_the_tarball_is_downloaded_and_its_images_are_counted(tmp_path, tarball, web):
    web.files["/mirror.tar.gz"] = tarball.read_bytes()
    source = Source("mirror", files=((f"{web.url}/mirror.tar.gz", "mirror.tar.gz"),), images=54)
    web.break_after = [1000]  # the download is tried again
    target = get_data(replace(TASK, sources=(source,)), str(tmp_path / "root"))
    assert len(web.seen) == 2
    assert len(by_name(target, 0)) == 54
    with pytest.raises(DataError, match="mirror.tar.gz has 54 images, not 55"):
        get_data(replace(TASK, sources=(replace(source, images=55),)), str(tmp_path / "other"))
    assert not (tmp_path / "other" / "weeds").exists()


def test_the_images_are_downloaded_from_a_given_address(tmp_path, tarball, web):
    web.files["/copies/mirror.tar.gz"] = tarball.read_bytes()
    target = get_data(TASK, str(tmp_path / "root"), address=f"{web.url}/copies/mirror.tar.gz")
    assert len(by_name(target, 0)) == 54
    web.files["/other/mirror.tar.gz"] = b"<html>Sign in</html>"  # another file of the same name
    with pytest.raises(DataError, match="sent a file that is not a tarball as mirror.tar.gz"):
        get_data(replace(TASK, name="copy"), str(tmp_path / "root"), address=f"{web.url}/other/mirror.tar.gz")
    web.files["/other/mirror.tar.gz"] = web.files["/copies/mirror.tar.gz"]
    shutil.rmtree(target)
    web.seen.clear()
    get_data(TASK, str(tmp_path / "root"), address=f"{web.url}/other/mirror.tar.gz")
    assert [path for path, _ in web.seen] == ["/other/mirror.tar.gz"], "the file of the first address was taken for that of the second"
    for address in ("ftp://a/b.zip", "http://[::1/b.zip"):
        with pytest.raises(UsageError, match=re.escape(f"--from {address}: not an http")):
            get_data(TASK, str(tmp_path / "other"), address=address)
    with pytest.raises(DataError, match="cannot be downloaded: "):
        get_data(TASK, str(tmp_path / "other"), address=f"{web.url}/nothing.tar.gz")


@pytest.mark.parametrize("beside", ["", "labels"])
def test_import_of_images_zip_with_the_labels_beside_it(tmp_path, beside):
    downloads = tmp_path / "Downloads"
    write_images(tmp_path / "images")
    write_labels(downloads / beside)
    with zipfile.ZipFile(downloads / "images.zip", "w") as file:
        for name in names():
            file.write(tmp_path / "images" / name, name)
    before = sorted(path for path in downloads.rglob("*"))
    target = import_data(TASK, str(downloads / "images.zip"), str(tmp_path / "data"))
    assert by_name(target, 4) == {name: (part_of(name, 4), CLASSES[label]) for name, label in names().items()}
    assert sorted(path for path in downloads.rglob("*")) == before


def test_import_without_label_files(tmp_path):
    write_images(tmp_path / "photos" / "images")
    with pytest.raises(DataError, match=r"(?m)^no label files for photos: neither labels.csv nor train_subset0.csv$") as caught:
        import_data(TASK, str(tmp_path / "photos"), str(tmp_path / "data"))
    assert caught.value.hint == "Put the CSV files of github.com/AlexOlsen/DeepWeeds/tree/master/labels into the same folder"
    assert os.listdir(tmp_path / "data") == []


def test_import_of_labels_without_images(tmp_path):
    write_labels(tmp_path / "DeepWeeds" / "labels")
    with pytest.raises(DataError, match=f"(?m)^no images in {tmp_path}/DeepWeeds$"):
        import_data(TASK, str(tmp_path / "DeepWeeds"), str(tmp_path / "data"))


def test_labels_csv_alone_gives_rows_without_parts(tmp_path):
    write_images(tmp_path / "images")
    write_labels(tmp_path, folds=False)
    assert by_name(tmp_path, None) == {name: ("", CLASSES[label]) for name, label in names().items()}


def test_labels_csv_alone_is_divided_by_day(tmp_path):
    write_images(tmp_path / "images")
    write_labels(tmp_path, folds=False)
    table = load_table(TASK, resolve_settings(TASK, "partial", {"fold": 1}), tmp_path)
    days = {split: {row.group for row in table.part(split)} for split in ("train", "valid")}
    assert days["train"] and days["valid"] and not days["train"] & days["valid"]


def test_a_folder_without_label_files_is_read_as_class_folders(tmp_path):
    (tmp_path / "train" / "Lantana").mkdir(parents=True)
    assert rows(tmp_path, 0) is None


def test_missing_fold_files(tmp_path):
    write_images(tmp_path / "images")
    write_labels(tmp_path / "labels")
    (tmp_path / "labels" / "labels.csv").unlink()
    for prefix in PREFIXES.values():
        (tmp_path / "labels" / f"{prefix}_subset3.csv").unlink()
    with pytest.raises(DataError) as caught:
        rows(tmp_path, 3)
    assert caught.value.message == f"{tmp_path}/labels: fold 3 has no train_subset3.csv, val_subset3.csv, test_subset3.csv"
    assert caught.value.hint == "Choose another --fold, or add the file"
    assert len(by_name(tmp_path, 2)) == 54


def test_label_out_of_range(deepweeds):
    write_csv(deepweeds / "labels" / "val_subset2.csv", ["Filename", "Label"], [("20170910-100300-0.jpg", 0), ("20170911-100300-1.jpg", 9)])
    with pytest.raises(DataError) as caught:
        rows(deepweeds, 2)
    path = deepweeds / "labels" / "val_subset2.csv"
    assert caught.value.message == f"{path} line 3: label '9' of '20170911-100300-1.jpg' is not one of 0, 1, 2, 3, 4, 5, 6, 7, 8"


def test_row_without_a_file_name(deepweeds):
    write_csv(deepweeds / "labels" / "val_subset2.csv", ["Filename", "Label"], [("", 0)])
    with pytest.raises(DataError, match=r"(?m)val_subset2.csv line 2: no file name$"):
        rows(deepweeds, 2)


def test_missing_column(deepweeds):
    write_csv(deepweeds / "labels" / "train_subset2.csv", ["Filename", "Species"], [("20170910-100300-0.jpg", "Lantana")])
    with pytest.raises(DataError, match=r"(?m)train_subset2.csv: no column Label$") as caught:
        rows(deepweeds, 2)
    assert caught.value.hint == "The label files of DeepWeeds have the columns Filename and Label"


def test_label_file_that_is_not_text(deepweeds):
    (deepweeds / "labels" / "train_subset2.csv").write_bytes(b"Filename,Label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"(?m)train_subset2.csv is not a CSV file"):
        rows(deepweeds, 2)


def test_image_without_a_date_in_its_name_has_no_group(tmp_path):
    write_csv(tmp_path / "labels.csv", ["Filename", "Label"], [("IMG_1.jpg", 1), ("20170914-100337-3.jpg", 8)])
    assert [(row.label, row.group) for row in rows(tmp_path, None) or []] == [("Lantana", ""), ("Negative", "20170914")]


@pytest.mark.parametrize("fold", range(3))
def test_folds_of_days_replace_the_official_ones(deepweeds, fold):
    settings = resolve_settings(TASK, None, {"group_by": "day", "fold": fold})
    settings = replace(settings, internals=replace(settings.internals, folds=3))
    table = load_table(TASK, settings, deepweeds)
    days = {split: {Path(row.path).name[:8] for row in table.part(split)} for split in ("train", "valid", "test")}
    assert len(table.rows) == len(names())
    assert (len(days["train"]), len(days["valid"]), days["test"]) == (4, 2, set())
    assert not days["train"] & days["valid"]
    assert table.official_folds is False
    assert {row.group for row in table.part("valid")} == days["valid"]
    others = [load_table(TASK, replace(settings, fold=other), deepweeds).part("valid") for other in range(3) if other != fold]
    assert not {row.path for row in table.part("valid")} & {row.path for part in others for row in part}


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_classes_that_a_fold_of_days_lacks_are_named(deepweeds):
    for path in (deepweeds / "labels").glob("*.csv"):  # Parkinsonia on two of the six days
        path.write_text("\n".join(line for line in path.read_text().splitlines() if not (",2" in line and line[:8] not in ("20170910", "20170911"))) + "\n")
    settings = resolve_settings(TASK, None, {"group_by": "day"})
    tables = [load_table(TASK, replace(settings, fold=fold), deepweeds) for fold in range(5)]
    lacking = [not any(row.label == "Parkinsonia" for row in table.part("valid")) for table in tables]
    noted = ["the valid split has no image of: Parkinsonia; the evaluation says nothing about it" in table.notes for table in tables]
    assert noted == lacking
    assert 3 <= sum(lacking) < 5
