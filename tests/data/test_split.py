"""Splits of the images."""

from __future__ import annotations

from tlfast import tasks
from tlfast.commands import compare
from tlfast.tasks import resolve


def test_a_smaller_share_is_part_of_a_larger_one(folder):
    task = tasks.folder_task(folder)

    def kept(share):
        table = compare.load_table(task, resolve.resolve_settings(task, None, {"train_pct": share}), folder)
        assert len(table.rows) == 36 and len(table.part("valid")) == 6
        return {row.path for row in table.part("train")}

    assert kept(0.2) < kept(0.5) < kept(1.0)
