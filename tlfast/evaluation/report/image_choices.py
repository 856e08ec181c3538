"""The table of a run's images in its report, and the images for which the page offers a choice: keep, drop or relabel.

The page holds the table compressed, because it names every image of the run. `templates/cleaned_table.js` unpacks it, applies the choices and
writes the CSV file; `templates/choices.js` is the form.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from ...data import Row
from ...data.split import drop_spare


@dataclass(frozen=True)
class Choice:
    """An image for which the page offers a choice: its path in the table, and its label."""

    path: str
    label: str


class ImageChoices:
    """The images of a run, as the table that a page holds. Without rows, the page offers no choices.

    >>> choices = ImageChoices([Row("/photos/cat/1.jpg", "cat", "train")])
    >>> choices.find("/photos/cat/1.jpg")
    Choice(path='/photos/cat/1.jpg', label='cat')
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {row.path: row for row in drop_spare(rows)}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def find(self, path: str) -> Choice | None:
        """Return the choice for an image; None if the table does not have it."""
        row = self._rows.get(path)
        return Choice(os.path.abspath(path), row.label) if row else None

    def pack(self) -> str:
        """Return the table as base64 of zlib-compressed JSON: a list of [folder, label, split, group, file names], in the order of the rows."""
        key = itemgetter(0, 1, 2, 3)
        blocks = [[*block, [cells[4] for cells in members]] for block, members in groupby(self._list_cells(), key)]
        return base64.b64encode(zlib.compress(json.dumps(blocks).encode())).decode()

    def _list_cells(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield folder, label, split, group and file name of each image. Folder and file name together are the absolute path."""
        for row in self._rows.values():
            path = os.path.abspath(row.path)
            start = max(path.rfind("/"), path.rfind(os.sep)) + 1
            yield path[:start], row.label, row.split, row.group, path[start:]
