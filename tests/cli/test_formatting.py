"""Tables and lines that the command line prints."""

from __future__ import annotations

from dataclasses import replace

from tlfast import tasks
from tlfast.cli import formatting
from tlfast.tasks import resolve
from tlfast.training.types import DepthPlan


def test_what_was_predicted_is_said_with_its_epochs():
    choice, chosen = DepthPlan("2", "", 100.0, 0.0, 2, 9, 60.0), resolve.resolve_settings(tasks.get_task("fer"), None, {"depth": "2", "epochs": 7})
    assert formatting._format_predicted(choice, chosen) == "predicted: 60.0 for 9 epochs"
    assert formatting._format_predicted(choice, replace(chosen, epochs=9)) == "predicted: 60.0"
