"""A run of an untrained network."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.models import CLASSES, STATS
from tlfast import tasks
from tlfast.core import runs
from tlfast.data.types import Preprocessing
from tlfast.export import metadata, onnx, weights
from tlfast.models import build
from tlfast.tasks import resolve
from tlfast.training import records


@pytest.fixture
def saved(tmp_path):
    """Write a run of a tiny random network; `saved(resize="pad", crop_pct=0.8)` returns its folder."""

    def save(**flags):
        task = tasks.folder_task(tmp_path)
        chosen = resolve.resolve_settings(task, None, {"arch": "test_resnet", "size": 32, "weights": "none", **flags})
        torch.manual_seed(3)
        model = build.build_model("test_resnet", 3, 32)
        with runs.create_run(str(tmp_path / "out"), "t", "r") as (folder, published):
            weights.save_model(folder, model, CLASSES, chosen.arch, Preprocessing.from_settings(chosen, STATS))
            about = metadata.describe_model(chosen, CLASSES, "r", "none", "none: not pretrained")
            onnx.export_onnx(folder / "model.onnx", model, Preprocessing.from_settings(chosen, STATS), about)
            runs.seal(folder, records.build_manifest(chosen, CLASSES, Preprocessing.from_settings(chosen, STATS)))
        return published[0]

    return save
