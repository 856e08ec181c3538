"""LogME against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from tlfast.evaluation import log_evidence
from tlfast.evaluation.transferability import _class_evidence


def draw(n: int, d: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features `[n, d]` and labels of three classes that a linear map of the features gives, but for noise."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(n, d))
    logits = features @ generator.normal(size=(d, 3)) + noise * generator.normal(size=(n, 3))
    return features, logits.argmax(axis=1)


def define_evidence(features: np.ndarray, target: np.ndarray, alpha: float, beta: float) -> float:
    """Return the log density of a target under a Gaussian prior of the weights and Gaussian noise, per image."""
    n = len(target)
    covariance = np.eye(n) / beta + features @ features.T / alpha
    return float(-0.5 * (target @ np.linalg.solve(covariance, target) + np.linalg.slogdet(covariance)[1] + n * np.log(2 * np.pi)) / n)


@pytest.mark.parametrize(("n", "d"), [(60, 10), (40, 100)])
def test_evidence_is_the_maximum_over_both_precisions(n, d):
    features, labels = draw(n, d, noise=0.5)
    target = (labels == 0).astype(float)
    u, singular, _ = np.linalg.svd(features, full_matrices=False)
    inside = (u.T @ target) ** 2
    found = _class_evidence(singular**2, inside, max(0.0, float(target @ target - inside.sum())), n, d)
    grid = np.exp(np.linspace(-7, 9, 120))
    best = max(define_evidence(features, target, alpha, beta) for alpha in grid for beta in grid)
    assert found == pytest.approx(best, abs=0.01)


def test_better_features_score_higher():
    scores = [log_evidence(*draw(300, 20, noise)) for noise in (0.1, 2.0, 20.0)]
    assert scores == sorted(scores, reverse=True)


def test_scale_and_rotation_of_features_change_little():
    features, labels = draw(200, 12, noise=1.0)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))
    assert log_evidence(1000 * features @ rotation, labels) == pytest.approx(log_evidence(features, labels), abs=1e-3)


def test_constant_features_give_a_finite_score():
    assert np.isfinite(log_evidence(np.ones((50, 8)), np.arange(50) % 2))
