"""Images in tars and parquet files."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tlfast.core.errors import DataError, ImageError
from tlfast.data import images
from tlfast.data.discovery import gather_sources
from tlfast.data.left_out import LeftOut
from tlfast.testing import COLOURS, draw_image


@pytest.fixture
def pictures(tmp_path):
    """Paths of twelve different images."""
    colours = list(COLOURS.values())
    for n in range(12):
        draw_image(tmp_path / "files" / f"{n:02d}.png", colours[n % 3], n)
    return sorted((tmp_path / "files").iterdir())


def write_tar(path, pictures):
    with tarfile.open(path, "w") as file:
        for picture in pictures:
            file.add(picture, f"inner/{picture.name}")
            file.addfile(tarfile.TarInfo(f"inner/{picture.stem}.cls"), io.BytesIO())
    return path


def write_parquet(path, pictures, as_struct):
    values = [picture.read_bytes() for picture in pictures]
    column = [{"bytes": value, "path": "x"} for value in values] if as_struct else values
    parquet.write_table(pa.table({"image": column, "number": list(range(len(values)))}), path, row_group_size=5)
    return path


@pytest.mark.parametrize("kind", ["tar", "bytes", "struct"])
def test_images_in_packed_files_are_those_of_the_files(tmp_path, pictures, kind):
    path = write_tar(tmp_path / "a.tar", pictures) if kind == "tar" else write_parquet(tmp_path / "a.parquet", pictures, kind == "struct")
    names = list(gather_sources([str(path)]))
    assert names[0] == str(path) + ("!/inner/00.png" if kind == "tar" else "#0") and len(names) == len(pictures)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(images.read_bytes, names * 3))
    assert read == [picture.read_bytes() for picture in pictures] * 3
    assert np.array_equal(images.open_image(names[7]), images.open_image(pictures[7]))


def test_a_parquet_file_with_paths_is_a_list(tmp_path, pictures):
    values = {"path": [picture.name for picture in pictures], "image": [picture.read_bytes() for picture in pictures]}
    parquet.write_table(pa.table(values), tmp_path / "files" / "a.parquet")
    assert list(gather_sources([str(tmp_path / "files" / "a.parquet")])) == list(map(str, pictures))


def test_one_of_several_columns_of_images(tmp_path, pictures):
    photos, masks = ([picture.read_bytes() for picture in chosen] for chosen in (pictures[:3], pictures[3:6]))
    path = tmp_path / "two.parquet"
    parquet.write_table(pa.table({"photo": photos, "mask": masks}), path)
    for column, names, values in (("path", "012", photos), ("photo", "012", photos), ("mask", ["mask:0", "mask:1", "mask:2"], masks)):
        found = list(gather_sources([str(path)], column))
        assert found == [f"{path}#{name}" for name in names]
        assert [images.read_bytes(each) for each in found] == values
    with pytest.raises(ImageError, match="cannot be read .*no column of images named 'other'"):
        images.read_bytes(f"{path}#other:0")


def test_what_is_missing_or_damaged(tmp_path, pictures):
    tar, table = write_tar(tmp_path / "a.tar", pictures), write_parquet(tmp_path / "a.parquet", pictures, False)
    for path in (f"{tar}!/none.png", f"{table}#12", f"{tmp_path}/gone.tar!/a.png", f"{tmp_path}/gone.parquet#0"):
        with pytest.raises(ImageError, match="cannot be read"):
            images.read_bytes(path)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ImageError, match="cannot be read"):
        images.read_bytes(f"{tmp_path}/bad.tar!/a.png")
    with pytest.raises(DataError, match="is not a tar that can be read"):
        list(gather_sources([str(tmp_path / "bad.tar")]))


def test_a_row_of_a_table_without_images(tmp_path):
    parquet.write_table(pa.table({"label": ["a", "b"]}), tmp_path / "table.parquet")
    with pytest.raises(ImageError, match="there is no column of images"):
        images.read_bytes(f"{tmp_path / 'table.parquet'}#1")


def test_a_file_of_such_a_name_is_a_file(tmp_path, pictures):
    odd = tmp_path / "x.parquet#3"
    odd.write_bytes(pictures[0].read_bytes())
    assert images.read_bytes(str(odd)) == pictures[0].read_bytes()


def test_a_tar_that_is_cut_off_is_damaged(tmp_path, pictures):
    whole = write_tar(tmp_path / "a.tar", pictures).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as file:
        offsets = [member.offset for member in file]
    for size in (offsets[3], offsets[3] + 100, offsets[-1]):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match="cut off|unexpected end"):
            list(gather_sources([str(tmp_path / "cut.tar")]))


def test_hard_links_and_other_files_in_a_tar(tmp_path, pictures):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(pictures[0], "a.png")
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        file.addfile(link)
        file.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    left_out = LeftOut()
    names = list(gather_sources([str(tmp_path / "a.tar")], left_out=left_out))
    assert [images.read_bytes(name) for name in names] == [pictures[0].read_bytes()] * 2 and left_out.files == {".txt": 1}
