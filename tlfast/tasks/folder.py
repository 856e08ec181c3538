"""`tlfast train path/to/images`: any folder, zip, CSV or parquet file of labelled images, with the defaults of `Settings`."""

from __future__ import annotations

import re
from pathlib import Path

from ..data import Task


def folder_task(path: Path) -> Task:
    """Return a task for images of the user. Its name is that of the folder or file; its runs are in `exports/<name>`."""
    stem = path.stem if path.is_file() else path.name  # a folder, or a data set of the hub such as user/birds-1.0
    name = re.sub(r"[^\w.+-]+", "-", stem).strip("-.") or "images"
    return Task(name=name, title=f"images of {path}")
