"""Intervals, and two classifiers compared: against scikit-learn, against worked examples, against the truth of a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tlfast.core.metrics import compute_metrics, confusion_matrix
from tlfast.evaluation import bootstrap


def drawn(rng, counts, confusion):
    return np.array([rng.multinomial(n, row) for n, row in zip(counts, confusion, strict=True)])


TRUTH = np.array([[0.85, 0.10, 0.05], [0.20, 0.70, 0.10], [0.25, 0.25, 0.50]])

COUNTS = np.array([150, 100, 50])


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    rng, rounds = np.random.default_rng(7), 1500
    truth = {name: float(value) for name, value in compute_metrics(TRUTH * COUNTS[:, None]).items()}
    hits = dict.fromkeys(truth, 0)
    for seed in range(rounds):
        for name, (low, high) in bootstrap.bootstrap_intervals(drawn(rng, COUNTS, TRUTH), seed).items():
            hits[name] += low <= truth[name] <= high
    shares = {name: count / rounds for name, count in hits.items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.slow
def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says():
    rng, rounds, n = np.random.default_rng(3), 1500, 400
    labels, hits = np.repeat([0, 1], n // 2), 0
    for seed in range(rounds):
        ease = rng.random(n)  # of each image, the same for both
        first, second = ease < 0.75, ease + rng.normal(0, 0.1, n) < 0.70
        low, high = bootstrap.paired_interval(first, second, labels, seed)[1:]
        hits += low <= TRUE_DIFFERENCE <= high
    assert 0.93 <= hits / rounds <= 0.97, hits / rounds


# P(u < 0.75) - P(u + e < 0.70) with u uniform on (0, 1), e normal with standard deviation 0.1: 0.75 - E[clip(0.70 - e, 0, 1)], of which the
# clipping at 1 takes E[(-0.30 - e)+] = 0.1 * (phi(3) - 3 * (1 - Phi(3))) = 0.0000382.
TRUE_DIFFERENCE = 0.75 - (0.70 - 0.0000382)


def test_the_same_seed_gives_the_same_interval():
    confusion = drawn(np.random.default_rng(1), COUNTS, TRUTH)
    assert bootstrap.bootstrap_intervals(confusion, 5) == bootstrap.bootstrap_intervals(confusion, 5)
    assert bootstrap.bootstrap_intervals(confusion, 5) != bootstrap.bootstrap_intervals(confusion, 6)


def test_a_metric_that_never_differs_has_no_interval():
    single = bootstrap.bootstrap_intervals(np.roll(np.eye(12, dtype=int), 1, axis=1))  # one image in each class, all wrong
    assert single == {"accuracy": bootstrap.wilson_interval(0, 12)}
    labels, groups = np.repeat([0, 1], 12), [str(n // 2) for n in range(24)]
    assert bootstrap.group_intervals(labels, labels, groups, 2) == {"accuracy": bootstrap.wilson_interval(12, 12)}


def test_the_interval_of_a_mean_is_that_of_drawing_images():
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, 3, 300), rng.gamma(2.0, 1.0, 300)
    low, high = bootstrap.mean_interval(values, labels)
    within = sum(((labels == c).mean() ** 2) * values[labels == c].var() / (labels == c).sum() for c in range(3)) ** 0.5
    assert (low, high) == pytest.approx((values.mean() - 1.96 * within, values.mean() + 1.96 * within), abs=0.03)


def test_accuracy_has_the_same_interval_from_its_matrix_and_from_its_images():
    confusion = np.array([[80, 20], [30, 170]])
    labels = np.repeat([0, 1], [100, 200])
    right = np.concatenate([np.arange(100) < 80, np.arange(200) < 170]).astype(float)
    assert bootstrap.bootstrap_intervals(confusion)["accuracy"] == pytest.approx(bootstrap.mean_interval(right, labels), abs=0.007)


def test_one_answer_to_all_is_no_certainty():
    """All draws of a network that answers one class are the same; Wilson's interval of 5 of 10 is textbook: 0.2366 to 0.7634."""
    found = bootstrap.bootstrap_intervals(np.array([[5, 0], [5, 0]]))
    assert found["accuracy"] == pytest.approx((0.2366, 0.7634), abs=5e-5)
    assert bootstrap.wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)


def clustered(rng, groups=40, size=25):
    """Labels, predictions and groups: the accuracy of a group is drawn, its images are alike."""
    share = rng.beta(8, 3, groups)
    labels = rng.integers(2, size=(groups, size))
    right = rng.random((groups, size)) < share[:, None]
    return labels.ravel(), np.where(right, labels, 1 - labels).ravel(), [str(n) for n in np.repeat(np.arange(groups), size)]


@pytest.mark.slow
def test_intervals_over_groups_hold_the_truth_for_new_groups_and_those_over_images_do_not():
    rng, rounds, over_groups, over_images = np.random.default_rng(5), 400, 0, 0
    for seed in range(rounds):
        labels, predicted, groups = clustered(rng)
        low, high = bootstrap.group_intervals(labels, predicted, groups, 2, seed)["accuracy"]
        over_groups += low <= 8 / 11 <= high
        low, high = bootstrap.mean_interval(labels == predicted, labels, seed)
        over_images += low <= 8 / 11 <= high
    assert 0.91 <= over_groups / rounds <= 0.98 and over_images / rounds < 0.85


def test_intervals_over_groups_are_those_of_a_loop():
    labels, predicted, groups = clustered(np.random.default_rng(1), groups=6, size=10)
    rng, found = np.random.default_rng(2), []
    names = np.unique(groups)
    for counts in rng.multinomial(6, np.full(6, 1 / 6), size=bootstrap.REPLICATES):
        chosen = np.concatenate([np.flatnonzero(np.array(groups) == name) for name, count in zip(names, counts, strict=True) for _ in range(count)])
        found.append(float((labels[chosen] == predicted[chosen]).mean()))
    expected = bootstrap.percentile_interval(np.array(found))
    assert bootstrap.group_intervals(labels, predicted, groups, 2, 2)["accuracy"] == pytest.approx(expected)
    assert bootstrap.mean_interval(labels == predicted, labels, 2, groups) == pytest.approx(expected)
    macro = bootstrap.bootstrap_macro_f1(np.array([predicted]), labels, 2, 2, groups)
    assert bootstrap.percentile_interval(macro) == pytest.approx(bootstrap.group_intervals(labels, predicted, groups, 2, 2)["macro_f1"])


def test_each_image_as_a_group_is_nearly_the_usual_interval():
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=2000)
    predicted = np.where(rng.random(2000) < 0.8, labels, 1 - labels)
    first = bootstrap.mean_interval(labels == predicted, labels)
    second = bootstrap.mean_interval(labels == predicted, labels, groups=[str(n) for n in range(2000)])
    assert second == pytest.approx(first, abs=0.004)


def test_wilsons_interval_of_no_hit_or_only_hits_ends_there():
    """With rounding errors the upper end is below 1 for a quarter of the totals, which a plot of the interval refuses."""
    assert {bootstrap.wilson_interval(n, n)[1] for n in range(1, 500)} == {1.0}
    assert {bootstrap.wilson_interval(0, n)[0] for n in range(1, 500)} == {0.0}


def test_an_accuracy_that_is_the_same_in_all_samples_has_wilsons_interval():
    labels, groups = np.repeat([0, 1], 10), [str(n // 2) for n in range(20)]
    assert bootstrap.accuracy_interval(np.ones(20), labels) == bootstrap.wilson_interval(20, 20)
    assert bootstrap.accuracy_interval(np.ones(20), labels, groups) == bootstrap.wilson_interval(10, 10)
    half = np.arange(20) < 5
    assert bootstrap.accuracy_interval(half, labels) == bootstrap.mean_interval(half, labels)


def test_a_difference_that_is_the_same_in_all_samples_is_not_certain():
    labels, same = np.repeat([0, 1], 25), np.ones(50)
    width = bootstrap.wilson_interval(0, 50)[1]
    assert 0.05 < width < 0.1
    assert bootstrap.paired_interval(same, same, labels) == (0.0, -width, width)
    assert bootstrap.paired_interval(same, 1 - same, labels) == (1.0, 1.0 - width, 1.0)
    by_day = bootstrap.paired_interval(same, same, labels, groups=[str(number % 12) for number in range(50)])
    assert by_day[2] == bootstrap.wilson_interval(0, 12)[1] > width


def test_intervals_are_those_of_drawing_whole_rows_of_the_matrix():
    rng, classes = np.random.default_rng(0), 70  # replicates are drawn in two blocks
    labels = rng.integers(classes - 3, size=400)  # the last classes have no images, and the last columns are zero
    predicted = np.where(rng.random(400) < 0.7, labels, (labels + rng.integers(1, 4, 400)) % (classes - 2))
    confusion = confusion_matrix(labels, predicted, classes)
    rng, blocks = np.random.default_rng(5), []
    for count in (816, 184):
        drawn = np.zeros((count, classes, classes), np.int64)
        for i, row in enumerate(confusion):
            if row.sum():
                drawn[:, i] = rng.multinomial(row.sum(), row / row.sum(), size=count)
        blocks.append(compute_metrics(drawn))
    expected = {name: bootstrap.percentile_interval(np.concatenate([block[name] for block in blocks])) for name in blocks[0]}
    assert bootstrap.bootstrap_intervals(confusion, 5) == expected


@pytest.mark.parametrize("by_group", [False, True])
def test_macro_f1_of_bootstrap_samples_is_that_of_their_confusion_matrices(by_group):
    rng, classes = np.random.default_rng(0), 5
    labels = np.sort(rng.integers(4, size=60))
    predicted = np.where(rng.random((2, 60)) < 0.6, labels, rng.integers(classes, size=(2, 60)))
    groups = [str(n % 15) for n in range(60)] if by_group else []
    rng, expected, members = np.random.default_rng(3), [], [np.flatnonzero(labels == label) for label in range(4)]
    for _ in range(bootstrap.REPLICATES):
        if by_group:
            counts = rng.multinomial(15, np.full(15, 1 / 15))
            drawn = np.repeat(np.arange(60), counts[np.unique(groups, return_inverse=True)[1]])
        else:
            drawn = np.concatenate([images[rng.integers(len(images), size=len(images))] for images in members])
        confusions = np.array([confusion_matrix(labels[drawn], row[drawn], classes) for row in predicted])
        expected.append(compute_metrics(confusions)["macro_f1"].mean())
    assert bootstrap.bootstrap_macro_f1(predicted, labels, classes, 3, groups).tolist() == expected
