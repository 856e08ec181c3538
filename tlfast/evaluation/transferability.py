"""Transferability: how well the features of a pretrained network suit labelled images, without training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDS, CONVERGED = 20, 1e-3  # of the fixed-point iteration; relative change of the ratio of alpha and beta
TINY = 1e-9


@dataclass(frozen=True)
class RankedBackbone:
    """A backbone and how well its features suit the images.

    Attributes:
        arch: name of the timm model.
        score: LogME of the features, per image; higher is better.
        features: number of features d.
        images: number of training images that the score is computed from.
        seconds: duration of their forward passes.
    """

    arch: str
    score: float
    features: int
    images: int
    seconds: float


def log_evidence(features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return LogME: the log of the maximum evidence of a linear model of each class's labels, per image, averaged over the classes. Higher is better.

    `features` are `[n, d]`, `labels` class indices `[n]`. The value can be compared between networks with different d. You et al., "LogME: Practical
    Assessment of Pre-trained Models for Transfer Learning", ICML 2021 (arXiv 2102.11005).

    >>> labels = np.arange(100) % 2
    >>> log_evidence(np.eye(2)[labels], labels) > log_evidence(np.random.default_rng(0).normal(size=(100, 2)), labels)
    True
    """
    n, d = features.shape
    u, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    targets = np.equal.outer(labels, np.unique(labels)).astype(np.float64)
    inside = (u.T @ targets) ** 2  # of each class, along each singular vector
    outside = np.maximum((targets**2).sum(axis=0) - inside.sum(axis=0), 0.0)
    variances = singular**2
    return float(np.mean([_class_evidence(variances, inside[:, k], outside[k], n, d) for k in range(targets.shape[1])]))


def _class_evidence(variances: np.ndarray[Any, Any], inside: np.ndarray[Any, Any], outside: float, n: int, d: int) -> float:
    """Return the log evidence per image for the precisions alpha of the weights and beta of the noise that maximize it (MacKay's fixed point)."""
    alpha = beta = 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        effective = float((variances / (variances + ratio)).sum())  # number of parameters that the data determine
        weights = float((variances * inside / (variances + ratio) ** 2).sum())
        residual = float((inside / (1 + variances / ratio) ** 2).sum()) + outside
        alpha, beta = effective / (weights + TINY), (n - effective) / (residual + TINY)
        if abs(alpha / beta - ratio) <= CONVERGED * ratio:
            break
    determinant = float(np.log(alpha + beta * variances).sum()) + (d - len(variances)) * math.log(alpha)
    evidence = d * math.log(alpha) + n * math.log(beta) - determinant - beta * residual - alpha * weights - n * math.log(2 * math.pi)
    return evidence / (2 * n)
