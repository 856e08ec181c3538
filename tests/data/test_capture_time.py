"""Images near in time by their file names."""

from __future__ import annotations

from datetime import datetime

import pytest

from tlfast.data import Row
from tlfast.data.capture_time import find_near_in_time, read_capture_time


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20170914-100337-3.jpg", ("", datetime(2017, 9, 14, 10, 3, 37))),
        ("IMG_20200229_235959.jpg", ("IMG_", datetime(2020, 2, 29, 23, 59, 59))),
        ("site 4 20200229T000000Z.png", ("site 4 ", datetime(2020, 2, 29))),
        ("20200229000000.png", ("", datetime(2020, 2, 29))),
        ("20210229-000000.png", None),  # 2021 is no leap year
        ("20170914-250337.jpg", None),
        ("1201709141003370.jpg", None),
        ("0001.png", None),
    ],
)
def test_time_stamps_of_file_names(name, expected):
    assert read_capture_time(f"20000101-000000/{name}") == expected


def rows(*images):
    return [Row(f"d/{name}", "a", split) for name, split in images]


def found(*images):
    return [(finding.path, finding.other, finding.value) for finding in find_near_in_time(rows(*images))]


def test_the_nearest_training_image_before_or_after_is_named():
    images = [("20200101-000010-1.jpg", "test"), ("20200101-000005-0.jpg", "train"), ("20200101-000012-2.jpg", "train"), ("20200101-000100-0.jpg", "valid")]
    assert found(*images) == [("d/20200101-000010-1.jpg", "d/20200101-000012-2.jpg", 2.0)]


@pytest.mark.parametrize(("second", "near"), [(15, True), (16, False), (5, True), (4, False)])
def test_five_seconds_are_near_and_six_are_not(second, near):
    assert bool(found(("20200101-000010.jpg", "valid"), (f"20200101-0000{second:02d}.jpg", "train"))) == near


def test_other_sites_splits_and_names_without_a_time_are_not_compared():
    assert found(("a 20200101-000010.jpg", "test"), ("b 20200101-000010.jpg", "train")) == []
    assert found(("20200101-000010.jpg", "train"), ("20200101-000011.jpg", "train")) == []
    assert found(("20200101-000010.jpg", "valid"), ("20200101-000011.jpg", "test")) == []
    assert found(("1.jpg", "valid"), ("2.jpg", "train")) == []


def test_equal_times_are_near():
    assert found(("20200101-000010-0.jpg", "test"), ("20200101-000010-1.jpg", "train")) == [("d/20200101-000010-0.jpg", "d/20200101-000010-1.jpg", 0.0)]
