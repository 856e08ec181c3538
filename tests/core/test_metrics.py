"""Metrics, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from sklearn import metrics as skm

from tlfast.core.metrics import compute_metrics


@st.composite
def cases(draw):
    classes = draw(st.integers(2, 6))
    index = st.integers(0, classes - 1)
    pairs = draw(st.lists(st.tuples(index, index), min_size=2, max_size=60))
    return classes, *map(np.array, zip(*pairs, strict=True))


@given(cases())
@effort(max_examples=1000, deadline=None)
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes without predictions
def test_figures_are_scikit_learns(case):
    classes, labels, predicted = case
    found = compute_metrics(skm.confusion_matrix(labels, predicted, labels=range(classes)))
    assert found["accuracy"] == pytest.approx(skm.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(skm.balanced_accuracy_score(labels, predicted))
    macro = skm.precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    assert [found[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(macro[:3])
    assert found["mcc"] == pytest.approx(skm.matthews_corrcoef(labels, predicted))
    kappa = skm.cohen_kappa_score(labels, predicted)
    assert found["kappa"] == pytest.approx(0.0 if np.isnan(kappa) else kappa)


def test_figures_of_many_matrices_at_once():
    matrices = np.random.default_rng(0).integers(0, 9, (2, 5, 4, 4))
    together = compute_metrics(matrices)
    for name, values in together.items():
        assert values.shape == (2, 5)
        assert values[1, 3] == pytest.approx(compute_metrics(matrices[1, 3])[name])
