"""What a report reads from the files of a run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tlfast.data.types import Row
from tlfast.evaluation import Predictions, TopLoss, save_predictions
from tlfast.evaluation.report import read_evaluation


def test_top_losses_of_stored_predictions(tmp_path):
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75], [0.25, 0.75]])
    rows = [Row("1.png", "a", "valid"), Row("2.png", "a", "valid"), Row("3.png", "b", "valid")]
    save_predictions(tmp_path, Predictions(rows, ["a", "b"], np.log(probabilities), np.array([0, 0, 1])), "valid", probabilities)
    (tmp_path / "metrics.json").write_text(json.dumps({"classes": ["a", "b"]}))
    stored = read_evaluation(SimpleNamespace(folder=tmp_path), "valid").predictions
    assert stored.list_top_losses(["a", "b"], 2) == [
        TopLoss("2.png", "a", "b", 0.75, 0.25, pytest.approx(-np.log(0.25))),
        TopLoss("1.png", "a", "a", 0.75, 0.75, pytest.approx(-np.log(0.75))),
    ]
    assert len(stored.list_top_losses(["a", "b"], 9)) == 3
