"""Local paths in texts for other people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def hide_paths(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a manifest that names files and folders without the folders above them.

    >>> hide_paths({"settings": {"data": "/home/me/photos"}, "note": "no image in /home/me/photos/red"})
    {'settings': {'data': 'photos'}, 'note': 'no image in photos/red'}
    """
    values = [value for group in ("settings", "data", "weights") for value in manifest.get(group, {}).values()]
    places = {str(value) for value in (*values, manifest.get("task_file", "")) if os.path.isabs(str(value))}
    folders = sorted({os.path.dirname(place.rstrip(os.sep)).rstrip(os.sep) for place in places} - {""}, key=len, reverse=True)

    def hide(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: hide(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [hide(item) for item in value]
        if not isinstance(value, str):
            return value
        for folder in folders:
            value = value.replace(folder + os.sep, "")
        return os.path.basename(value) if os.path.isabs(value) else value

    return hide(manifest)
