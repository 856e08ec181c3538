"""Facts that the report and the model card share."""

from __future__ import annotations

import pytest

from tlfast.core.settings import Settings
from tlfast.evaluation.report.facts import describe_trained_layers


@pytest.mark.parametrize(
    ("depth", "sentence"),
    [
        ("0", "The classifier of `resnet50` was"),
        ("1", "The classifier and the topmost stage of `resnet50` were"),
        ("4", "The classifier and the top 4 stages of `resnet50` were"),
        ("all", "All layers of `resnet50` were"),
    ],
)
def test_the_model_card_names_the_trained_layers(depth, sentence):
    settings = Settings.from_dict({"task": "digits", "arch": "resnet50", "strategy": "", "depth": depth})
    assert describe_trained_layers(settings) == sentence
