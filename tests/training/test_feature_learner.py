"""Training of the head on cached features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.training import resolved
from tlfast.training import feature_learner, features, trainer
from tlfast.training.callbacks.distillation import soften


def test_feature_loader_takes_whole_batches():
    import numpy as np

    array = np.arange(10, dtype=np.float16)[:, None]
    part = features.SplitFeatures([array, array + 100], [np.arange(5), np.arange(5)], torch.arange(5).repeat(2))
    cpu = torch.device("cpu")
    shuffled = list(feature_learner.FeatureLoader(part, 4, True, cpu))
    assert [len(y) for _, y in shuffled] == [4, 4]
    assert all(torch.equal(x[:, 0].long() % 100, y.as_subclass(torch.Tensor)) for x, y in shuffled)
    ordered = list(feature_learner.FeatureLoader(part, 4, False, cpu))
    assert torch.cat([x for x, _ in ordered])[:, 0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    none = feature_learner.FeatureLoader(part, 4, False, cpu)
    none.get_idxs = list  # a process without an image
    assert list(none) == []


@pytest.mark.parametrize("placed", [False, True])
def test_batches_have_the_probabilities_of_a_teacher(monkeypatch, placed):
    monkeypatch.setattr(features, "fits_on_gpu", lambda size, device: placed)
    logs = torch.rand(12, 3).log_softmax(dim=1).half()
    parts = [features.SplitFeatures([values], [np.arange(12)], torch.arange(12) % 3) for values in (np.arange(12, dtype=np.float16)[:, None], logs.numpy())]
    batches = list(feature_learner.FeatureLoader(parts[0], 4, True, torch.device("cpu"), soft=parts[1]))
    assert len(batches) == 3
    assert all(torch.equal(found, soften(logs.float()[x[:, 0].long()])) for x, found, _ in batches)


def test_head_batches_grow_with_the_set():
    assert [feature_learner.choose_head_batch(count, 64) for count in (100, 3_000, 10_000, 60_000)] == [64, 64, 200, 512]
    assert feature_learner.choose_head_batch(60_000, 1024) == 1024


def test_predictions_from_features_are_the_whole_models(folder):
    task, chosen = resolved(folder, "partial")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        _, kept = trainer.fit(session, chosen)
        ours = feature_learner.predict_from_features(kept.valid, session.learn.model[1], session.table.part("valid"), session.table.classes)
        whole = trainer.predict_valid(session, chosen)
    assert ours.rows == whole.rows and (ours.labels == whole.labels).all()
    assert ours.log_probabilities == pytest.approx(whole.log_probabilities, abs=2e-3)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.1])
def test_quick_dropout_drops_as_often_and_keeps_the_mean(p):
    np.random.seed(0)
    dropped = feature_learner.ByteDropout(p).train()(torch.ones(1000, 500))
    share = round(256 * p) / 256
    assert (dropped == 0).float().mean() == pytest.approx(share, abs=0.005) and dropped.mean() == pytest.approx(1.0, abs=0.01)
    assert dropped.max() == pytest.approx(1 / (1 - share))
    np.random.seed(0)
    assert torch.equal(feature_learner.ByteDropout(p).train()(torch.ones(1000, 500)), dropped)
    assert torch.equal(feature_learner.ByteDropout(p).eval()(torch.ones(3, 3)), torch.ones(3, 3))


def test_a_head_has_its_own_dropout_again_after_training():
    head = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.25), torch.nn.Linear(4, 2))
    own = head[1]
    with pytest.raises(RuntimeError, match="broken off"), feature_learner.use_byte_dropout(head, torch.device("cpu")):
        assert isinstance(head[1], feature_learner.ByteDropout)
        raise RuntimeError("broken off")
    assert head[1] is own
    with feature_learner.use_byte_dropout(head, torch.device("cuda")):
        assert head[1] is own
