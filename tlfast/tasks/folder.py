"""`tlfast train path/to/images`: any folder, zip or CSV of labelled images. Its defaults are those of `Settings`."""

from __future__ import annotations

import re
from pathlib import Path

from ..data.task import Task


def folder_task(path: Path) -> Task:
    """Make the task for the user's own images; its runs lie in `exports/<name of the folder or file>`."""
    stem = path.name if path.is_dir() else path.stem
    name = re.sub(r"[^\w.+-]+", "-", stem).strip("-.") or "images"
    return Task(name=name, title=f"images of {path}")
