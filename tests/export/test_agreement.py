"""The comparison of an exported file with its network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.models import STATS
from tlfast.core.errors import ExportError
from tlfast.data import Preprocessing
from tlfast.export import agreement
from tlfast.export.agreement import ResizedInput, compare_with_network, judge_agreement
from tlfast.models import build_model
from tlfast.testing import draw_image

PREPROCESSING = Preprocessing(32, 32, "squish", *STATS)


def test_a_file_gets_the_images_as_they_are_and_prepared(tmp_path):
    network = ResizedInput(build_model("test_resnet", 3, 32).eval(), PREPROCESSING, 1.3)
    pictures = [str(draw_image(tmp_path / f"{i}.png", (200, 90, 30), i, (40 + i, 50))) for i in range(9)]
    seen, events = [], []

    def predict(opened, prepared):
        seen.append(([image.shape for image in opened], prepared.shape))
        return network(torch.from_numpy(prepared)).detach().numpy()

    pairs = compare_with_network("model.x", predict, network, PREPROCESSING, ["gone.png", *pictures], events.append)
    assert [source for source, _, _ in pairs] == pictures, "the image that cannot be read is left out"
    assert seen == [
        ([(50, 40 + i, 3) for i in range(7)], (7, 32, 32, 3)),
        ([(50, 47, 3), (50, 48, 3)], (2, 32, 32, 3)),
    ]
    assert all(expected.sum() == pytest.approx(1) and np.allclose(expected, actual) for _, expected, actual in pairs)
    assert [(event.phase, event.done, event.total) for event in events] == [("checking model.x", 8, 10), ("checking model.x", 10, 10)]


def test_large_images_are_opened_only_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "BATCH_BYTES", 10_000)
    network = ResizedInput(build_model("test_resnet", 3, 32).eval(), PREPROCESSING, 1.0)
    pictures = [str(draw_image(tmp_path / f"{i}.png", (200, 90, 30), i, (40, 50))) for i in range(5)]  # 6,000 bytes each
    batches, events = [], []

    def predict(opened, prepared):
        batches.append(len(opened))
        return network(torch.from_numpy(prepared)).detach().numpy()

    assert len(compare_with_network("model.x", predict, network, PREPROCESSING, pictures, events.append)) == 5
    assert batches == [2, 2, 1] and [event.done for event in events] == [2, 4, 5]


def test_without_readable_images_there_is_nothing_to_compare():
    network = ResizedInput(build_model("test_resnet", 3, 32).eval(), PREPROCESSING, 1.0)
    with pytest.raises(ExportError, match=r"none of 2 images for the check of model.x can be read, the first: gone.png"):
        compare_with_network("model.x", lambda opened, prepared: [], network, PREPROCESSING, ["gone.png", "lost.png"], lambda event: None)


def test_a_file_that_returns_no_number_for_some_images_is_refused():
    even = np.array([0.5, 0.3, 0.2])
    with pytest.raises(ExportError, match="differ by up to nan"):
        judge_agreement("model.onnx", [("a.png", even, even), ("b.png", even, np.full(3, np.nan))], "")
