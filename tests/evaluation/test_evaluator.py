from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as skm

from tlfast.core.errors import TrainingError
from tlfast.core.metrics import METRICS, compute_metrics
from tlfast.data.types import Row
from tlfast.evaluation import calibration, evaluate
from tlfast.evaluation.types import Predictions


def evaluate_probabilities(probabilities, labels, classes, split, temperature=1.0):
    return evaluate(Predictions([], classes, np.log(probabilities), labels), split, temperature)


def one_hot(predicted, classes, sure=0.8):
    rest = (1 - sure) / (classes - 1)
    return np.array([[sure if j == p else rest for j in range(classes)] for p in predicted], np.float32)


def test_a_case_worked_by_hand():
    #        labels   0 0 0 1 1 2      predicted 0 0 1 1 1 0
    result = evaluate_probabilities(one_hot([0, 0, 1, 1, 1, 0], 3), np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"], "valid")
    assert result.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    a, b, c = result.per_class
    assert (a.precision, a.recall, a.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (b.precision, b.recall, b.f1) == (pytest.approx(2 / 3), 1.0, pytest.approx(0.8))
    assert (c.precision, c.recall, c.f1, c.support) == (0.0, 0.0, 0.0, 1)
    assert result.macro.f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert result.weighted.f1 == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)
    assert result.log_loss == pytest.approx(-(4 * np.log(0.8) + 2 * np.log(0.1)) / 6, abs=1e-6)


def test_a_class_that_does_not_occur_counts_in_no_average():
    result = evaluate_probabilities(one_hot([0, 1], 3), np.array([0, 1]), ["a", "b", "c"], "valid")
    assert result.macro.f1 == 1.0 and result.balanced_accuracy == 1.0 and result.per_class[2].support == 0


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of classes without labels or predictions
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [([0, 0, 1, 3, 3], [0, 4, 4, 3, 1]), ([2, 2, 2], [2, 2, 2]), ([1, 1], [0, 3]), ([0, 1, 4], [4, 4, 4]), ([5, 5, 5], [0, 1, 5])],
    ids=str,
)
def test_classes_without_labels_or_predictions_beside_scikit_learn(labels, predicted):
    found = evaluate_probabilities(one_hot(predicted, 6), np.array(labels), list("abcdef"), "valid")
    computed = compute_metrics(np.array(found.confusion))
    assert {name: found.figure(name) for name in METRICS} == computed, "the values whose intervals are computed"
    assert found.confusion == skm.confusion_matrix(labels, predicted, labels=range(6)).tolist()
    assert found.accuracy == pytest.approx(skm.accuracy_score(labels, predicted))
    assert found.balanced_accuracy == pytest.approx(skm.balanced_accuracy_score(labels, predicted))
    assert found.kappa == pytest.approx(np.nan_to_num(skm.cohen_kappa_score(labels, predicted)))
    assert found.mcc == pytest.approx(skm.matthews_corrcoef(labels, predicted))
    for score in (found.macro, found.weighted):
        expected = skm.precision_recall_fscore_support(labels, predicted, average=score.name, zero_division=0)[:3]
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected) and score.support == len(labels)


def random_case(n, classes, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return Predictions([], [f"c{i}" for i in range(classes)], logits, labels)


def test_every_figure_beside_scikit_learn():
    said = random_case(500, 7)
    p = softmax(said.log_probabilities.astype(float), axis=1)
    guess = p.argmax(axis=1)
    found = evaluate(said, "test", 1.0)
    assert found.roc_auc == pytest.approx(skm.roc_auc_score(said.labels, p, multi_class="ovr", average="macro"))
    assert found.average_precision == pytest.approx(skm.average_precision_score(np.eye(7)[said.labels], p, average="macro"))
    assert found.kappa == pytest.approx(skm.cohen_kappa_score(said.labels, guess))
    assert found.mcc == pytest.approx(skm.matthews_corrcoef(said.labels, guess))
    assert found.log_loss == pytest.approx(skm.log_loss(said.labels, p))
    rank = (p > p[np.arange(500), said.labels][:, None]).sum(axis=1)
    assert found.top == {"3": pytest.approx((rank < 3).mean()), "5": pytest.approx((rank < 5).mean())}
    for name, value in {"accuracy": found.accuracy, "macro_f1": found.macro.f1, "log_loss": found.log_loss, "brier": found.brier}.items():
        low, high = found.intervals[name]
        assert low < value < high


def test_the_true_class_among_the_most_probable_ones_in_blocks_of_images(monkeypatch):
    monkeypatch.setattr(calibration, "BLOCK", 600)
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 6, 400), rng.integers(0, 3, (400, 6)).astype(np.float32)
    p, events = calibration.apply_temperature(logits, 1.0), []  # with the same rounding, on which the order depends
    found = evaluate(Predictions([], list("abcdef"), logits, labels), "test", 1.0, on_event=events.append)
    assert found.top == {str(k): skm.top_k_accuracy_score(labels, p, k=k, labels=range(6)) for k in (3, 5)}
    assert [(event.phase, event.done, event.total) for event in events] == [("computing metrics", done, 3) for done in range(4)]


def test_predictions_that_are_no_numbers_are_an_error():
    said = random_case(20, 3)
    said.log_probabilities[4, 1] = np.nan
    with pytest.raises(TrainingError, match="the network predicts NaN for 1 of 20 images"):
        evaluate(said, "valid")


def test_a_given_temperature_is_used_and_a_fitted_one_said():
    said = random_case(600, 4)
    given, fitted = evaluate(said, "test", 2.0), evaluate(said, "valid")
    assert given.calibration.temperature == 2.0
    assert given.log_loss == pytest.approx(skm.log_loss(said.labels, softmax(said.log_probabilities / 2.0, axis=1)), rel=1e-5)
    assert fitted.calibration.temperature == pytest.approx(calibration.fit_temperature(said.log_probabilities, said.labels))
    assert given.accuracy == fitted.accuracy and given.calibration.log_loss_before == fitted.calibration.log_loss_before


def test_groups_of_images_get_intervals_of_their_own():
    labels = np.array([0, 1] * 20)
    found = {}
    for name, of_rows in (("days", "aaaabbbbcccc"), ("none", ""), ("one", "a" * 40), ("few", "abcdefgh" + "i" * 32), ("each", "")):
        groups = [*of_rows, *[""] * (40 - len(of_rows))]
        rows = [Row(f"{n}.png", "xy"[label], "valid", f"{n}" if name == "each" else group) for n, (label, group) in enumerate(zip(labels, groups, strict=True))]
        log_probabilities = np.log(one_hot((labels + (np.arange(40) < 6)) % 2, 2))
        found[name] = evaluate(Predictions(rows, ["x", "y"], log_probabilities, labels), "valid", 1.0)
    assert {name: (each.groups, bool(each.group_intervals)) for name, each in found.items()} == {
        "days": (3 + 28, True),  # an image without a group is one of its own
        "none": (0, False),
        "one": (0, False),
        "few": (9, False),
        "each": (0, False),
    }
    (low, high), (lower, higher) = found["days"].intervals["accuracy"], found["days"].group_intervals["accuracy"]
    assert higher - lower > high - low and set(found["days"].group_intervals) == set(METRICS)


def test_two_classes_and_a_single_one():
    two = evaluate_probabilities(one_hot([0, 1, 1], 2), np.array([0, 1, 0]), ["a", "b"], "valid")
    assert two.top == {} and 0 <= two.roc_auc <= 1
    one = evaluate_probabilities(one_hot([0, 0], 2), np.array([0, 0]), ["a", "b"], "valid")
    assert one.roc_auc is None and one.average_precision is None and one.kappa == 0.0


@pytest.mark.slow
def test_many_classes_and_predictions_take_no_more_memory_than_they_must():
    said = random_case(20_000, 100)
    tracemalloc.start()
    found = evaluate(said, "valid")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.top["5"] > found.accuracy and peak < 5 * 16e6, "float64 arrays of all predictions"
