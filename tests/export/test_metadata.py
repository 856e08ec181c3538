"""What an export says of itself."""

from __future__ import annotations

from tests.helpers.models import CLASSES
from tlfast import tasks
from tlfast.export import metadata
from tlfast.tasks import resolve


def chosen(folder, **flags):
    return resolve.resolve_settings(tasks.folder_task(folder), None, {"arch": "test_resnet", "size": 32, "weights": "none", **flags})


def test_portrait_needs_no_run_folder(tmp_path):
    about = metadata.describe_model(chosen(tmp_path), CLASSES, "r", "none", "MIT")
    assert all(isinstance(value, str) for value in about.values()) and about["licence"] == "MIT"
