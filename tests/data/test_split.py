"""Splits of the images."""

from __future__ import annotations

import pytest

from tlfast import tasks
from tlfast.core.errors import DataError
from tlfast.data import Row, load_table, split
from tlfast.tasks import resolve


def test_a_smaller_share_is_part_of_a_larger_one(folder):
    task = tasks.folder_task(folder)

    def kept(share):
        table = load_table(task, resolve.resolve_settings(task, None, {"train_pct": share}), folder)
        assert len(table.rows) == 36 and len(table.part("valid")) == 6
        return {row.path for row in table.part("train")}

    assert kept(0.2) < kept(0.5) < kept(1.0)


def test_groups_with_too_few_images_for_the_folds_are_refused():
    rows = [Row(f"{label}{i}.png", label, group=f"{label}{i}") for label in "ab" for i in range(3)]
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {"fold": 0})
    with pytest.raises(DataError, match="the largest class, 'a', has 3 images, fewer than the 5 folds"):
        split.assign_splits(rows, settings, seed=0, folds=5)
    assert {row.split for row in split.assign_splits(rows, settings, seed=0, folds=3)} == {"train", "valid"}
