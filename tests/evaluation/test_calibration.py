"""Calibration: against published examples, scikit-learn's own temperature, and the truth of a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as skm

from tlfast.evaluation import calibration


def simulated(n=4000, classes=5, temperature=2.5, seed=0):
    """Logits that are too sure of themselves by a known factor, and labels drawn from what they should say."""
    rng = np.random.default_rng(seed)
    truth = 1.5 * rng.normal(size=(n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(truth, axis=1)])
    return log_softmax(truth * temperature, axis=1), labels


def test_the_example_of_torchmetrics():
    """MulticlassCalibrationError's own documentation: 0.2000 in three bins."""
    p = np.array([[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]])
    right = p.argmax(axis=1) == np.array([0, 1, 2, 0])
    assert calibration.expected_calibration_error(calibration.bin_reliability(p.max(axis=1), right, bins=3)) == pytest.approx(0.2)


def test_bins_hold_their_upper_edge_and_all_images():
    found = calibration.bin_reliability(np.array([0.2, 0.2001, 0.4, 1.0, 0.0]), np.array([True, False, True, True, False]), bins=5)
    assert [(each.low, each.high, each.images) for each in found] == [(0.0, 0.2, 2), (0.2, 0.4, 2), (0.8, 1.0, 1)]
    assert found[0].accuracy == 0.5 and found[1].confidence == pytest.approx(0.30005)


def test_temperature_is_found_again():
    said, labels = simulated()
    assert calibration.fit_temperature(said, labels) == pytest.approx(2.5, rel=0.05)


def test_temperature_is_the_best_there_is():
    said, labels = simulated(n=500)
    best = calibration.fit_temperature(said, labels)
    losses = {t: calibration.log_loss(calibration.apply_temperature(said, t), labels) for t in (best, 0.99 * best, 1.01 * best, 1.0)}
    assert min(losses, key=losses.get) == best


def test_blocks_of_images_give_the_same_numbers(monkeypatch):
    said, labels = simulated(n=203, classes=7)
    whole = calibration.choose_temperature(said, labels), calibration.squared_errors(np.exp(said), labels)
    monkeypatch.setattr(calibration, "BLOCK", 70)
    blocks = calibration.choose_temperature(said, labels), calibration.squared_errors(np.exp(said), labels)
    assert whole[0].temperature == blocks[0].temperature and (whole[0].held_out == blocks[0].held_out).all() and (whole[1] == blocks[1]).all()
    assert (calibration.apply_temperature(said, 2.0) == np.exp(log_softmax(said / 2.0, axis=1))).all()


def test_temperature_is_scikit_learns():
    calibrator = pytest.importorskip("sklearn.calibration")
    frozen = pytest.importorskip("sklearn.frozen").FrozenEstimator
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose logits are its input."""

        def fit(self, x, y):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, x):
            return x

        def predict(self, x):
            return self.classes_[x.argmax(axis=1)]

    said, labels = simulated(n=1500)
    try:
        theirs = calibrator.CalibratedClassifierCV(frozen(Given().fit(said, labels)), method="temperature").fit(said, labels)
    except ValueError:
        pytest.skip("this scikit-learn has no temperature scaling")
    ours = calibration.apply_temperature(said, calibration.fit_temperature(said, labels))
    assert theirs.predict_proba(said) == pytest.approx(ours, abs=2e-3)


def test_probabilities_at_a_temperature():
    said = np.log([[0.5, 0.25, 0.25]])
    assert calibration.apply_temperature(said, 1.0) == pytest.approx(np.array([[0.5, 0.25, 0.25]]))
    assert calibration.apply_temperature(said, 0.5) == pytest.approx(np.array([[4, 1, 1]]) / 6)  # squares
    assert calibration.apply_temperature(np.array([[0.0, -1e6]]), 1.0) == pytest.approx(np.array([[1.0, 0.0]]))


def test_few_wrong_answers_fit_no_temperature():
    said = np.log(np.full((30, 2), [0.9, 0.1]))
    labels = np.array([0] * 21 + [1] * 9)
    assert calibration.fit_temperature(said, labels) == 1.0
    assert calibration.cross_validate_temperature(said, labels) == pytest.approx(np.exp(said))
    assert calibration.fit_temperature(said, np.array([0] * 20 + [1] * 10)) != 1.0


def test_calibrating_helps_on_images_that_were_not_fitted_to():
    said, labels = simulated(n=1000)
    before, after = calibration.apply_temperature(said, 1.0), calibration.cross_validate_temperature(said, labels)
    assert (after.argmax(axis=1) == said.argmax(axis=1)).all() and after.sum(axis=1) == pytest.approx(1.0)
    found = calibration.measure_calibration(after, before, labels, calibration.fit_temperature(said, labels))
    assert found.error < 0.05 < 0.15 < found.error_before
    assert calibration.log_loss(after, labels) < found.log_loss_before


def test_a_temperature_that_makes_held_out_images_worse_is_not_chosen():
    said, labels = simulated(n=1000)
    good = calibration.choose_temperature(said, labels)
    assert good.temperature == calibration.fit_temperature(said, labels) and good.rejected is None
    assert good.held_out == pytest.approx(calibration.cross_validate_temperature(said, labels))
    calibrated = np.log(calibration.apply_temperature(said, good.temperature))
    bad = calibration.choose_temperature(calibrated, labels)
    assert bad.temperature == 1.0 and bad.rejected == pytest.approx(1.0, abs=0.01)
    assert bad.held_out == pytest.approx(calibration.apply_temperature(calibrated, 1.0))
    repeated = calibration.choose_temperature(calibrated, labels, calibrated=True)
    assert repeated.temperature == bad.rejected and repeated.rejected is None
    assert calibration.choose_temperature(said, labels, calibrated=False).temperature == 1.0
    few = calibration.choose_temperature(said[:10], said[:10].argmax(axis=1))
    assert few.temperature == 1.0 and few.rejected is None


def test_each_image_is_calibrated_without_itself():
    said, labels = simulated(n=300)
    one = said[:1].copy()
    changed = said.copy()
    changed[0] = log_softmax(said[0] * 50)  # it would pull any temperature that it is fitted by
    ratio = np.log(calibration.cross_validate_temperature(changed, labels)[0, 1:] / calibration.cross_validate_temperature(changed, labels)[0, 0])
    plain = np.log(calibration.cross_validate_temperature(said, labels)[0, 1:] / calibration.cross_validate_temperature(said, labels)[0, 0])
    assert one.shape == (1, 5) and ratio == pytest.approx(50 * plain, rel=1e-6)


def test_log_loss_and_brier_score():
    said, labels = simulated(n=200, classes=3)
    p = calibration.apply_temperature(said, 1.0)
    assert calibration.log_loss(p, labels) == pytest.approx(skm.log_loss(labels, p))
    assert calibration.brier_score(p, labels) == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(axis=1).mean())
    assert np.isfinite(calibration.log_loss(np.array([[1.0, 0.0]]), np.array([1])))


def test_coverage_by_hand():
    confidence, right = np.array([0.9, 0.8, 0.8, 0.6, 0.5]), np.array([True, True, False, True, False])
    curve = calibration.coverage_curve(confidence, right)
    assert [(p.threshold, p.coverage, p.accuracy) for p in curve] == [
        (0.9, 0.2, 1.0), (0.8, 0.6, pytest.approx(2 / 3)), (0.6, 0.8, 0.75), (0.5, 1.0, 0.6),
    ]  # fmt: skip
    assert calibration.threshold_at_accuracy(curve, 0.7).threshold == 0.6 and calibration.threshold_at_accuracy(curve, 0.95).coverage == 0.2
    assert calibration.threshold_at_accuracy(calibration.coverage_curve(confidence, np.zeros(5, bool)), 0.5) is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    said, labels = simulated(n=1001)
    p = calibration.apply_temperature(said, 1.0)
    curve = calibration.measure_calibration(p, p, labels, 1.0).curve
    assert len(curve) <= 102 and curve[0].coverage == pytest.approx(1 / 1001) and curve[-1].coverage == 1.0
