"""k-nearest neighbours in the features of a frozen backbone: a classifier without training, as a baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from ..data import Row
from ..evaluation import Predictions
from .features import Features, SplitFeatures

# Both as in Wu et al. 2018 (arXiv 1805.01978) and Caron et al. 2021 (arXiv 2104.14294).
NEIGHBOURS, VOTE_TEMPERATURE = 20, 0.07
MIN_VOTE = 1e-3  # share of the votes of each class, so that no probability is 0


def predict_neighbours(features: Features, rows: Sequence[Row], classes: Sequence[str]) -> Predictions:
    """Predict the images `rows` of the valid split by their NEIGHBOURS most similar training images.

    Each neighbour votes for its class with weight `exp(s / VOTE_TEMPERATURE)`, where s is the cosine similarity of the features.
    """
    trained, labels = _read_all(features.train), features.train.labels.numpy()
    distances, nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(labels)), metric="cosine").fit(trained).kneighbors(_read_all(features.valid))
    weights = np.exp((distances[:, :1] - distances) / VOTE_TEMPERATURE)  # relative to the nearest, which has 1
    votes = np.zeros((len(rows), len(classes)))
    np.add.at(votes, (np.arange(len(rows))[:, None], labels[nearest]), weights)
    votes += MIN_VOTE * weights.sum(axis=1, keepdims=True)
    return Predictions(rows, classes, np.log(votes / votes.sum(axis=1, keepdims=True)), features.valid.labels.numpy())


def _read_all(features: SplitFeatures) -> np.ndarray:
    """Return the features of all items, `[v * n, d]`."""
    return features[torch.arange(len(features))].numpy()
