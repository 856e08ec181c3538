"""Tables of images from text."""

from __future__ import annotations

from tlfast import tasks
from tlfast.data.table import load_table
from tlfast.tasks.resolve import resolve_settings


def listed(tmp_path, text: str, name: str = "list.csv", **flags):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_table(tasks.folder_task(path), resolve_settings(tasks.folder_task(path), None, {"data": str(path), **flags}), path)
