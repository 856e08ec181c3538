"""Notes on the rows of an image table: divided groups, classes with similar names, and classes without validation images."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.errors import list_some
from .task import normalise_name
from .types import Row


def find_divided_groups(rows: Sequence[Row]) -> list[str]:
    """Return a note on groups with images in the train split and in another one, as a table may have them."""
    trained = {row.group for row in rows if row.group and row.split == "train"}
    divided = {row.group for row in rows if row.split in ("valid", "test")} & trained
    return [f"groups with images in the train split and in another: {len(divided):,}, such as {min(divided)}; the figures may be too high"] if divided else []


def find_similar_classes(classes: Sequence[str]) -> list[str]:
    """Return a note for each pair of class names that differ only in case, spaces, "-" or "_".

    >>> find_similar_classes(["Red", "blue", "red"])
    ["the names of the classes 'Red' and 'red' are almost equal; give them the same name if they are one class"]
    """
    notes: list[str] = []
    first: dict[str, str] = {}
    for label in filter(re.compile(r"[^\W\d_]").search, classes):  # with a letter: -1 and 1 are two numbers
        other = first.setdefault(normalise_name(label), label)
        if other != label:
            notes.append(f"the names of the classes '{other}' and '{label}' are almost equal; give them the same name if they are one class")
    return notes


def find_missing_classes(rows: Sequence[Row], classes: Sequence[str]) -> list[str]:
    """Return a note on classes without images in the valid split. An empty split is an error of its own."""
    present = {row.label for row in rows if row.split == "valid"}
    missing = [label for label in classes if present and label not in present]
    return [f"the valid split has no image of: {list_some(missing)}; the evaluation says nothing about it"] if missing else []
