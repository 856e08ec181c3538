"""Images that could not be read once."""

from __future__ import annotations

import pytest

from tlfast import tasks
from tlfast.core import ImageError
from tlfast.data import images, load_table, open_store, scan
from tlfast.tasks import resolve


def read_store(folder, _):
    task = tasks.folder_task(folder)
    settings = resolve.resolve_settings(task, None, {"size": 24})
    table, _ = open_store(load_table(task, settings, folder), settings)
    return [unreadable.path for unreadable in table.unreadable]


def read_scan(_, paths):
    return list(scan.scan_images(paths, lambda event: None).unreadable)


@pytest.mark.parametrize("read", [read_store, read_scan])
def test_a_failure_of_the_disk_is_not_cached(folder, monkeypatch, read):
    paths, read_bytes = sorted(map(str, folder.rglob("*.png"))), images.read_bytes
    failing = {paths[3]}

    def fail(path):
        if path in failing:
            raise ImageError("Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(images, "read_bytes", fail)
    assert read(folder, paths) == read(folder, paths) == [paths[3]]
    failing.clear()
    assert read(folder, paths) == read(folder, paths) == []
