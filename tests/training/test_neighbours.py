"""Nearest neighbours as a classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlfast.data import Row
from tlfast.training.features import FeaturePass, Features, SplitFeatures
from tlfast.training.neighbours import NEIGHBOURS, VOTE_TEMPERATURE, predict_neighbours


def split(values, labels):
    return SplitFeatures([np.asarray(values, np.float32)], [np.arange(len(labels))], torch.tensor(labels))


def predict(trained, labels, images, classes=("a", "b")):
    valid = split(images, [0] * len(images))
    features = Features(split(trained, labels), valid, valid, FeaturePass(0, 0.0))
    return predict_neighbours(features, [Row(f"{n}.png", "a", "valid") for n in range(len(images))], classes)


def test_neighbours_vote_by_their_similarity():
    trained = [[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]]
    found = predict(trained, [0, 0, 1, 1], [[5, 0.1], [0.1, 5], [3, 3]])
    probabilities = np.exp(found.log_probabilities)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities.argmax(axis=1).tolist()[:2] == [0, 1] and probabilities[2] == pytest.approx([0.5, 0.5])
    similarity = np.array(trained) / np.linalg.norm(trained, axis=1, keepdims=True) @ [5, 0.1] / np.hypot(5, 0.1)
    votes = np.exp(similarity / VOTE_TEMPERATURE)
    assert probabilities[0, 0] == pytest.approx(votes[:2].sum() / votes.sum(), abs=2e-3)


def test_only_the_nearest_vote_and_no_probability_is_zero():
    draw = np.random.default_rng(0)
    near, far = np.array([1.0, 0.0]) + draw.normal(0, 0.01, (NEIGHBOURS, 2)), np.array([0.0, 1.0]) + draw.normal(0, 0.01, (200, 2))
    found = predict(np.concatenate([near, far]), [0] * NEIGHBOURS + [1] * 200, [[1.0, 0.0]], ("a", "b", "c"))
    assert np.exp(found.log_probabilities[0]) == pytest.approx([1, 0.001, 0.001], abs=0.003)
    assert np.isfinite(found.log_probabilities).all()
