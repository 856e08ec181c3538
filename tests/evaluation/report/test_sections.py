"""Sections of the report: one entry and one template each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from tlfast.evaluation import most_confused
from tlfast.evaluation.report.album import Album
from tlfast.evaluation.report.inputs import RankedPredictions, StoredEvaluation
from tlfast.evaluation.report.sections import SECTIONS, pair_values
from tlfast.evaluation.report.templating import template_environment


def test_every_section_has_a_template_and_every_template_a_section():
    templates = template_environment().list_templates(filter_func=lambda name: name.startswith("sections/"))
    assert sorted(f"sections/{section.name}.html" for section in SECTIONS) == sorted(templates)
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)


def test_confused_pairs_are_those_of_interpret():
    classes, confusion = ["a", "b", "c"], [[6, 1, 1], [0, 2, 1], [3, 0, 4]]
    actual, predicted = (np.array(indices) for indices in zip(*[(0, 1), (0, 2), (1, 2), *[(2, 0)] * 3, (0, 0)], strict=True))
    ones = np.ones(len(actual))
    predictions = RankedPredictions([f"{n}.png" for n in range(len(actual))], actual, predicted, ones, ones, ones)
    evaluation = StoredEvaluation({"confusion": confusion, "classes": classes}, predictions)
    pairs = pair_values(SimpleNamespace(evaluation=evaluation, album=Album(predictions, classes)))["pairs"]
    assert [(pair["actual"], pair["predicted"], pair["count"], pair["share"]) for pair in pairs] == [
        (pair.actual, pair.predicted, pair.count, pair.share) for pair in most_confused(confusion, classes)
    ]
    assert [pair["actual"] + pair["predicted"] for pair in pairs] == ["ca", "bc", "ab", "ac"], "of equal counts the largest share first"
    assert [entry["name"] for entry in pairs[0]["errors"]] == ["3.png", "4.png", "5.png"]
    assert [entry["name"] for entry in pairs[0]["correct"]] == ["6.png"]
