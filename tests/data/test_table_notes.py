"""Notes on the rows of an image table."""

from __future__ import annotations

from tlfast.data import Row
from tlfast.data.table_notes import find_missing_classes


def test_of_many_classes_without_validation_images_some_are_named():
    (note,) = find_missing_classes([Row("a.png", "c00", "valid")], [f"c{number:02}" for number in range(21)])
    assert note.startswith("the valid split has no image of: c01, c02,") and "c10 and 10 more;" in note
