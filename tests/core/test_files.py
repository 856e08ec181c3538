"""Files of JSON."""

from __future__ import annotations

import json

import pytest

from tlfast.core.files import format_json


def test_each_row_of_a_matrix_is_one_line():
    value = {"a": {"confusion": [[3, 0], [1, 2]]}, "confusion": [[1, 0, 5]], "after": "é"}
    text = format_json(value)
    assert json.loads(text) == value
    assert text == ('{\n "a": {\n  "confusion": [\n   [3, 0],\n   [1, 2]\n  ]\n },\n "confusion": [\n  [1, 0, 5]\n ],\n "after": "é"\n}\n')


@pytest.mark.parametrize(
    "value", [{"a": [1, 2], "b": (0.5, None), "c": [[0.1, 1]], "d": [], "e": [[]], 3: True}, [], {}, "text", 1.5, [["a", 1], [True]]], ids=str
)
def test_all_else_is_as_json_writes_it(value):
    assert format_json(value) == json.dumps(value, indent=1, ensure_ascii=False) + "\n"
