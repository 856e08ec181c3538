"""Networks that teach another one."""

from __future__ import annotations

import torch

from tlfast.core import runs
from tlfast.data.types import Preprocessing
from tlfast.export.weights import load_model
from tlfast.models.teacher import Ensemble, Teacher


def test_a_teacher_sees_what_its_own_training_saw(trained_run):
    """Classes in another order, another normalization and another size than those of the student."""
    run = runs.read_run(trained_run.full)
    network, own = load_model(run), Preprocessing.of_run(run)
    order = list(reversed(run.manifest["classes"]))
    given = Preprocessing(own.size, own.size, "squish", [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    pixels = torch.rand(4, 3, own.size, own.size)

    def normalize(values, preprocessing):
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (preprocessing.mean, preprocessing.std))
        return (values - mean) / std

    with torch.no_grad():
        expected = network(normalize(pixels, own)).log_softmax(dim=1).flip(1)
    found = Teacher(network, own, given, [run.manifest["classes"].index(label) for label in order])
    assert torch.allclose(found(normalize(pixels, given)), expected, atol=1e-4)
    large = torch.rand(4, 3, 2 * own.size, 2 * own.size)
    with torch.no_grad():
        small = torch.nn.functional.interpolate(large, size=(own.size, own.size), mode="bilinear", antialias=True)
        resized = network(normalize(small, own)).log_softmax(dim=1).flip(1)
    assert torch.allclose(found(normalize(large, given)), resized, atol=1e-3)
    both = Ensemble([found, Teacher(network, own, given, [0, 1, 2])], ["one", "other"])(normalize(pixels, given))
    assert torch.allclose(both.exp(), (expected.exp() + expected.flip(1).exp()) / 2, atol=1e-4)
