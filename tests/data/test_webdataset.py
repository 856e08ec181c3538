"""WebDataset tars."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.helpers.files import image_bytes, message
from tlfast.core.errors import DataError, UsageError
from tlfast.data.sources import open_data
from tlfast.tasks import find_task, resolve_settings


def write(path, samples):
    """Write samples: (key, {suffix: bytes})."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for key, parts in samples:
            for suffix, data in parts.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return path


def read(path, **flags):
    task, data = find_task(str(path))
    return open_data(task, resolve_settings(task, "partial", {"data": data, **flags}))


def samples(label, start=0):
    return [(f"{n:05d}", {"jpg": image_bytes(n, "JPEG"), **label(n)}) for n in range(start, start + 8)]


@pytest.mark.parametrize(
    "label",
    [
        lambda n: {"cls": str(n % 2).encode(), "txt": b"a caption"},
        lambda n: {"json": json.dumps({"label": n % 2, "width": 4}).encode()},
        lambda n: {"seg.png": b"other", "txt": str(n % 2).encode() + b"\n"},
    ],
    ids=["cls", "json", "txt"],
)
def test_labels_of_a_tar(tmp_path, label):
    table = read(write(tmp_path / "plants.tar", samples(label)))
    assert sorted((Path(row.path).read_bytes(), row.label) for row in table.rows) == sorted((image_bytes(n, "JPEG"), str(n % 2)) for n in range(8))


def test_shards_with_splits_in_their_names(tmp_path):
    for start, name in enumerate(("train-000000", "train-000001", "val-000000")):
        write(tmp_path / f"{name}.tar", samples(lambda n: {"cls": str(n % 2).encode()}, 8 * start))
    table = read(tmp_path)
    assert [len(table.part(split)) for split in ("train", "valid", "test")] == [16, 8, 0]


def test_other_files_beside_shards(tmp_path):
    for start, name in enumerate(("train-0", "val-0")):
        write(tmp_path / f"{name}.tar", samples(lambda n: {"cls": str(n % 2).encode()}, 8 * start))
    (tmp_path / "thumbnail.png").write_bytes(image_bytes(1))
    (tmp_path / "._train-0.tar").write_bytes(b"macOS")
    parquet.write_table(pa.table({"image": [image_bytes(1)], "label": ["a"]}), tmp_path / "zero.parquet")
    table = read(tmp_path)
    assert [len(table.part(split)) for split in ("train", "valid")] == [8, 8]
    assert table.notes == ("the images are those of train-0.tar; files of another format are left out: 1, such as zero.parquet",)


def test_groups_are_entries_of_the_json_files(tmp_path):
    path = write(tmp_path / "faces.tar", samples(lambda n: {"json": json.dumps({"label": n % 2, "subject": n // 4}).encode()}))
    assert {row.group for row in read(path, group_col="subject", valid_pct=0.5).rows} == {"0", "1"}
    assert "faces.tar has no column 'subjet'; it has: label, subject" in message(lambda: read(path, group_col="subjet"), UsageError)


def test_an_error_of_the_disk_is_one_of_the_tar(tmp_path, monkeypatch):
    path = write(tmp_path / "plants.tar", samples(lambda n: {"cls": b"1"}))

    def fail(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tarfile, "open", fail)
    assert "plants.tar is not a tar that can be read" in message(lambda: read(path))


def test_samples_without_a_label_are_counted_and_those_without_an_image_are_none(tmp_path):
    bare = [("90000", {"jpg": image_bytes(1)}), ("90001", {"cls": b"1"}), ("folder/.hidden", {"jpg": b""})]
    table = read(write(tmp_path / "plants.tar", [*samples(lambda n: {"cls": str(n % 2).encode()}), *bare]))
    assert len(table.rows) == 8 and table.notes == ("1 images without a label are skipped",)


def test_a_damaged_tar(tmp_path):
    path = write(tmp_path / "plants.tar", samples(lambda n: {"cls": b"1"}))
    path.write_bytes(path.read_bytes()[:3000])
    assert "is not a tar that can be read" in message(lambda: read(path))
    path.write_bytes(b"no tar")
    assert "is not a tar that can be read" in message(lambda: read(path))


def test_of_the_images_of_a_sample_the_plain_one_is_used(tmp_path):
    parts = [(f"{n:05d}", {"cls": str(n % 2).encode(), "mask.png": image_bytes(200), "png": image_bytes(n)}) for n in range(8)]
    table = read(write(tmp_path / "a.tar", parts))
    assert sorted(Path(row.path).read_bytes() for row in table.rows) == sorted(image_bytes(n) for n in range(8))


def test_a_tar_of_class_folders(tmp_path):
    path = write(tmp_path / "a.tar", [(f"photos/{label}/{n}", {"png": image_bytes(n)}) for label in ("cat", "dog") for n in range(4)])
    with pytest.raises(DataError, match="has no image with a label") as caught:
        read(path)
    assert "unpack a tar of class folders" in caught.value.hint
