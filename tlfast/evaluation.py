"""From one pass over the images to every figure: predictions, then metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sklearn import metrics as skm
from torch import nn

from .learner import network_input
from .results import ClassScore, ConfusedPair, Evaluation, Event, OnEvent


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable, total: int, on_event: OnEvent) -> tuple[np.ndarray, np.ndarray]:
    """Run the whole model over labelled batches: probabilities `[n, c]` and class indices `[n]`, in the loader's order."""
    model.eval()
    probabilities, labels = [], []
    for x, y in batches:
        logits = model(network_input(x))
        probabilities.append(logits.float().softmax(dim=1).cpu().numpy())
        labels.append(y.as_subclass(torch.Tensor).cpu().numpy())
        on_event(Event("evaluating", sum(map(len, labels)), total))
    return np.concatenate(probabilities), np.concatenate(labels)


def evaluate(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], split: str) -> Evaluation:
    """Judge probabilities `[n, c]` against class indices `[n]`, by scikit-learn.

    Averages are over the classes that occur among labels or predictions; a class without predictions has precision 0.
    """
    predicted = probabilities.argmax(axis=1)
    indices = list(range(len(classes)))
    by_class = skm.precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0)
    per_class = [ClassScore(name, float(p), float(r), float(f), int(n)) for name, p, r, f, n in zip(classes, *by_class, strict=True)]
    confusion = skm.confusion_matrix(labels, predicted, labels=indices)
    support = confusion.sum(axis=1)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)  # float32 rows miss 1 by more than scikit-learn allows
    recalls = by_class[1][support > 0]
    return Evaluation(
        split=split,
        classes=list(classes),
        accuracy=float(skm.accuracy_score(labels, predicted)),
        balanced_accuracy=float(recalls.mean()),
        log_loss=float(skm.log_loss(labels, exact, labels=indices)),
        macro=_average(labels, predicted, "macro"),
        weighted=_average(labels, predicted, "weighted"),
        per_class=per_class,
        confusion=confusion.tolist(),
    )


def most_confused(evaluation: Evaluation, least: int = 1) -> list[ConfusedPair]:
    """Return the off-diagonal cells of the confusion matrix, most frequent first."""
    matrix = np.array(evaluation.confusion)
    support = matrix.sum(axis=1)
    pairs = [
        ConfusedPair(evaluation.classes[i], evaluation.classes[j], int(matrix[i, j]), float(matrix[i, j] / support[i]))
        for i, j in zip(*np.where(matrix >= least), strict=True)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share))


def _average(labels: np.ndarray, predicted: np.ndarray, kind: str) -> ClassScore:
    precision, recall, f1, _ = skm.precision_recall_fscore_support(labels, predicted, average=kind, zero_division=0)
    return ClassScore(kind, float(precision), float(recall), float(f1), len(labels))
