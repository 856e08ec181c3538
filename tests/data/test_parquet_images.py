"""Parquet files that hold images, on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.helpers.files import image_bytes, message
from tlfast.core.errors import DataError, TlfastError
from tlfast.core.files import write_csv
from tlfast.data import discovery, unpacking
from tlfast.data.sources import open_data
from tlfast.data.table import check_readable
from tlfast.tasks import find_task, resolve_settings


def write(path, rows, names=None):
    table = pyarrow.Table.from_pylist(rows)
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


def read(path, **flags):
    task, data = find_task(str(path))
    return open_data(task, resolve_settings(task, "partial", {"data": data, **flags}))


def open_images(path):
    return check_readable(read(path))


def rows_of(count=8, **extra):
    return [{"image": {"bytes": image_bytes(n, "JPEG"), "path": f"{n}.jpg"}, "label": n % 2, **extra} for n in range(count)]


def test_images_labels_splits_and_groups_of_one_file(tmp_path):
    rows = [{"photo": image_bytes(n), "species": "ab"[n % 2], "part": "valid" if n < 2 else "train", "plot": f"p{n // 2}"} for n in range(8)]
    path = write(tmp_path / "plants.parquet", rows)
    table = read(path, label_col="species", split_col="part", group_col="plot")
    assert [(row.label, row.split, row.group) for row in sorted(table.rows, key=lambda row: row.path)] == [
        (row["species"], row["part"], row["plot"]) for row in rows
    ]
    assert table.source == str(path)
    assert [Path(row.path).read_bytes() for row in table.rows] == [image_bytes(n) for n in range(8)]


def test_a_folder_of_files_with_splits_in_their_names(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        write(tmp_path / "data" / f"{name}.parquet", rows_of(), ["cat", "dog"])
    table = read(tmp_path)
    assert {row.label for row in table.rows} == {"cat", "dog"}
    assert [len(table.part(split)) for split in ("train", "valid", "test")] == [16, 8, 8]


def test_the_fingerprint_does_not_depend_on_the_place_of_the_cache(tmp_path, monkeypatch):
    path = write(tmp_path / "plants.parquet", rows_of())
    first = read(path)
    monkeypatch.setenv("TLFAST_CACHE", str(tmp_path / "elsewhere"))
    second = read(path)
    assert first.fingerprint() == second.fingerprint() and first.rows != second.rows
    write(path, rows_of(10))
    assert read(path).fingerprint() != first.fingerprint()


@pytest.mark.parametrize("values", [(0, 1), (0.0, 1.0), (False, True)])
def test_group_zero_is_a_group(tmp_path, values):
    rows = [{**row, "subject": values[n // 4]} for n, row in enumerate(rows_of())]
    table = read(write(tmp_path / "faces.parquet", rows), group_col="subject", valid_pct=0.5)
    assert {row.group for row in table.rows} == {str(value) for value in values}
    assert len({(row.group, row.split) for row in table.rows}) == 2


def test_the_split_of_a_folder_does_not_stay_with_its_file(tmp_path):
    path = write(tmp_path / "data" / "test" / "0000.parquet", rows_of())
    assert "all images are in the test split" in message(lambda: read(tmp_path / "data"))
    assert len(read(path).part("train")) == 6


def test_images_that_were_removed_from_the_cache(tmp_path, cache_folder):
    path, listed = write(tmp_path / "plants.parquet", rows_of()), tmp_path / "images.csv"
    write_csv(listed, read(path).rows)
    assert len(open_images(listed).rows) == 8
    shutil.rmtree(cache_folder / "unpacked")
    with pytest.raises(DataError, match="8 of 8 images cannot be read") as caught:
        open_images(listed)
    assert "Unpack the images again: tlfast data check" in caught.value.hint
    read(path)
    assert len(open_images(listed).rows) == 8


def test_unpacked_once(tmp_path, monkeypatch):
    path = write(tmp_path / "plants.parquet", rows_of())
    before = read(path).rows
    monkeypatch.setattr(unpacking, "_write_images", None)
    assert read(path).rows == before


def test_one_of_several_columns_of_images_can_be_named(tmp_path):
    path = write(tmp_path / "plants.parquet", [{**row, "mask": row["image"], "image": {"bytes": image_bytes(99), "path": ""}} for row in rows_of()])
    table = read(path)
    assert {Path(row.path).read_bytes() for row in table.rows} == {image_bytes(99)}
    assert "the images are those of column image; --path-col chooses another one: mask" in table.notes
    assert not any("--path-col" in note for note in read(path, path_col="mask").notes)
    assert sorted(Path(row.path).read_bytes() for row in read(path, path_col="mask").rows) == sorted(row["image"]["bytes"] for row in rows_of())


@pytest.mark.parametrize("flags", [{"path_col": "photo"}, {"label_col": "kind"}, {"group_col": "subjet"}, {"split_col": "part"}])
def test_a_column_that_is_not_there_is_an_error(tmp_path, flags):
    path = write(tmp_path / "plants.parquet", rows_of(), ["cat", "dog"])
    (name,) = flags.values()
    with pytest.raises(TlfastError, match=f"plants.parquet has no column '{name}'; it has: image, label"):
        read(path, **flags)
    with pytest.raises(TlfastError, match="has no column 'photo'"):
        list(discovery.gather_sources([str(path)], "photo"))


def test_a_table_of_paths_stays_one_although_it_has_pictures(tmp_path):
    (tmp_path / "0.png").write_bytes(image_bytes(0))
    (tmp_path / "1.png").write_bytes(image_bytes(1))
    path = write(
        tmp_path / "plants.parquet", [{"path": f"{n}.png", "label": "ab"[n], "thumbnail": image_bytes(9), "split": ["train", "valid"][n]} for n in (0, 1)]
    )
    assert "no training images of class 'b'" in message(lambda: read(path))


@pytest.mark.parametrize(
    ("rows", "names", "expected"),
    [
        (rows_of(), None, ""),  # numbers without names
        ([{**row, "label": None} for row in rows_of()], None, "has no image with a label"),
        ([{**row, "label": -1} for row in rows_of()], ["cat", "dog"], "has no image with a label"),
        ([{"image": row["image"], "kind": row["label"]} for row in rows_of()], None, "has no column 'label'; it has: image, kind"),
        ([{**row, "split": "summer"} for row in rows_of()], None, "'summer' in the split column is not a split"),
        ([{"image": {"bytes": None, "path": "gone.jpg"}, "label": 0}, *rows_of()], None, ""),  # reported with the unreadable images
        ([{**row, "image": {"bytes": None, "path": "gone.jpg"}} for row in rows_of()], None, "holds paths of images and not the images, the first: gone.jpg"),
    ],
    ids=["numbers", "no labels", "no classes", "no column", "split", "one without bytes", "no bytes"],
)
def test_files_that_are_odd(tmp_path, rows, names, expected):
    path = write(tmp_path / "plants.parquet", rows, names)
    if expected:
        with pytest.raises(TlfastError, match=expected):
            read(path)
    else:
        assert {row.label for row in read(path).rows} == {"0", "1"}


def test_a_damaged_file(tmp_path):
    path = write(tmp_path / "plants.parquet", rows_of(600))
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    path.write_bytes(data)
    assert "cannot be read" in message(lambda: read(path))
