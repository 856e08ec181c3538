"""Predictions of a whole network for labelled images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.training import resolved
from tlfast.training import amp, feature_learner, prediction, trainer


def predict(session, settings):
    rows = session.table.part("valid")
    return prediction.predict_rows(session.learn.model, session.learn.dls, rows, session.table.classes, settings, lambda event: None)


@pytest.mark.parametrize("precision", ["off", "bf16"])
def test_the_body_computes_in_the_precision_of_features(folder, precision):
    task, chosen = resolved(folder, "partial", amp=precision)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        _, kept = trainer.fit(session, chosen)
        from_features = feature_learner.predict_from_features(kept.valid, session.learn.model[1], session.table.part("valid"), session.table.classes)
        state = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        whole = predict(session, chosen)
        other = predict(session, replace(chosen, amp="bf16" if precision == "off" else "off"))
        assert all(torch.equal(value, state[name]) for name, value in session.learn.model.state_dict().items())
    assert whole.log_probabilities == pytest.approx(from_features.log_probabilities, abs=2e-3)
    assert abs(other.log_probabilities - from_features.log_probabilities).max() > abs(whole.log_probabilities - from_features.log_probabilities).max()


def test_a_run_trained_in_fp16_on_a_gpu_is_evaluated_on_a_cpu(folder, monkeypatch):
    task, chosen = resolved(folder, "partial", amp="off")
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: False)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        trainer.fit(session, chosen)
        in_fp16, in_fp32 = (predict(session, replace(chosen, amp=precision)) for precision in ("fp16", "off"))
    assert (in_fp16.log_probabilities == in_fp32.log_probabilities).all()
