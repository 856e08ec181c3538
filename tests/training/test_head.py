"""Training of the head on cached features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers.training import resolved
from tlfast.training import features, head, trainer
from tlfast.training import head as head_module


def test_batchnorm_is_adapted_to_the_training_images_and_nothing_else_changes(folder):
    task, chosen = resolved(folder, "full", augment="none", bs=30)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        before = {name: value.clone() for name, value in body.state_dict().items()}
        head.adapt_batchnorm(body, session.learn.dls.train, chosen, lambda event: None)
        after = body.state_dict()
        changed = {name.rsplit(".", 1)[1] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"running_mean", "running_var", "num_batches_tracked"}
        x, _ = next(iter(session.learn.dls.train))
        norm = next(module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d))
        inputs = []
        norm.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
        body.eval()(x.as_subclass(torch.Tensor))
        assert norm.momentum == 0.1 and not body.training
        assert torch.allclose(norm.running_mean, inputs[0].mean(dim=(0, 2, 3)), atol=1e-4)


def test_feature_loader_takes_whole_batches():
    import numpy as np

    array = np.arange(10, dtype=np.float16)[:, None]
    part = features.SplitFeatures([array, array + 100], [np.arange(5), np.arange(5)], torch.arange(5).repeat(2))
    cpu = torch.device("cpu")
    shuffled = list(head_module.FeatureLoader(part, 4, True, cpu))
    assert [len(y) for _, y in shuffled] == [4, 4]
    assert all(torch.equal(x[:, 0].long() % 100, y.as_subclass(torch.Tensor)) for x, y in shuffled)
    ordered = list(head_module.FeatureLoader(part, 4, False, cpu))
    assert torch.cat([x for x, _ in ordered])[:, 0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_head_batches_grow_with_the_set():
    assert [head_module.choose_head_batch(count, 64) for count in (100, 3_000, 10_000, 60_000)] == [64, 64, 200, 512]
    assert head_module.choose_head_batch(60_000, 1024) == 1024


def test_predictions_from_features_are_the_whole_models(folder):
    task, chosen = resolved(folder, "partial")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        _, kept = trainer.fit(session, chosen)
        ours = head_module.predict_from_features(kept.valid, session.learn.model[1], session.table.part("valid"), session.table.classes)
        whole = trainer.predict_valid(session, chosen)
    assert ours.rows == whole.rows and (ours.labels == whole.labels).all()
    assert ours.log_probabilities == pytest.approx(whole.log_probabilities, abs=2e-3)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.1])
def test_quick_dropout_drops_as_often_and_keeps_the_mean(p):
    np.random.seed(0)
    dropped = head_module.ByteDropout(p).train()(torch.ones(1000, 500))
    share = round(256 * p) / 256
    assert (dropped == 0).float().mean() == pytest.approx(share, abs=0.005) and dropped.mean() == pytest.approx(1.0, abs=0.01)
    assert dropped.max() == pytest.approx(1 / (1 - share))
    np.random.seed(0)
    assert torch.equal(head_module.ByteDropout(p).train()(torch.ones(1000, 500)), dropped)
    assert torch.equal(head_module.ByteDropout(p).eval()(torch.ones(3, 3)), torch.ones(3, 3))


def test_a_head_has_its_own_dropout_again_after_training():
    head = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.25), torch.nn.Linear(4, 2))
    own = head[1]
    with pytest.raises(RuntimeError, match="broken off"), head_module.use_byte_dropout(head, torch.device("cpu")):
        assert isinstance(head[1], head_module.ByteDropout)
        raise RuntimeError("broken off")
    assert head[1] is own
    with head_module.use_byte_dropout(head, torch.device("cuda")):
        assert head[1] is own
