"""Records of a training."""

from __future__ import annotations

import math
from dataclasses import asdict

from tlfast.core.metrics import EPOCH_METRICS
from tlfast.training.types import EpochRow, restore_row


def test_the_row_of_another_version_is_restored():
    row = EpochRow("head", 1, 0.5, 0.4, **dict.fromkeys(EPOCH_METRICS, 0.3), seconds=2.0)
    values = asdict(row)
    assert restore_row(values) == row
    missing = restore_row({**{name: value for name, value in values.items() if name != "balanced_accuracy"}, "metric_of_a_later_version": 0.1})
    assert math.isnan(missing.balanced_accuracy) and (missing.accuracy, missing.seconds) == (0.3, 2.0)
