"""Features of a frozen backbone: their views, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.training import resolved
from tlfast.commands import train
from tlfast.core.errors import DataError
from tlfast.training import features, trainer
from tlfast.training import head as head_module


def extracted(session, chosen, events=None):
    return features.extract(session.learn.model[0], replace(session, on_event=(events if events is not None else []).append), chosen)


def rows(part):
    return part[torch.arange(len(part))]


@pytest.mark.parametrize("store", ["disk", "ram", "off"])
def test_first_view_is_plain(folder, store):
    task, chosen = resolved(folder, "partial", views=3, store=store)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        found = extracted(session, chosen)
        plain = extracted(session, replace(chosen, augment="none"))
        n = len(session.table.part("train"))
        body = session.learn.model[0].eval()
        x, y = next(iter(session.learn.dls.valid))
        with torch.inference_mode():
            directly = body(x.as_subclass(torch.Tensor))
    views = rows(found.train).view(3, n, -1)
    assert found.train.labels.view(3, n).unique(dim=0).shape[0] == 1
    assert torch.equal(views[0], rows(plain.train))
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    assert torch.allclose(rows(found.valid)[: len(y)], directly, atol=2e-3) and torch.equal(found.valid.labels[: len(y)], y.as_subclass(torch.Tensor))


def test_a_second_run_finds_them_and_one_with_more_views_adds_to_them(folder):
    task, chosen = resolved(folder, "partial", views=2)
    costs = []
    for views in (2, 2, 3):
        with trainer.prepare(task, chosen, lambda event: None) as session:
            found = extracted(session, replace(chosen, views=views))
        costs.append((found.cost.images, found.cost.kept))
    total, train = len(session.table.rows), len(session.table.part("train"))
    assert costs == [(total + train, 0), (0, total + train), (train, total + train)]


def test_kept_features_train_to_the_same_figures(folder, tmp_path):
    results = [train.train_run(*resolved(folder, "partial", out=str(tmp_path / "out"), lr="auto")) for _ in range(2)]
    assert results[1].phases[0].features.images == 0 < results[0].phases[0].features.images
    assert results[0].evaluation == results[1].evaluation
    assert [row.train_loss for row in results[0].phases[0].epochs] == [row.train_loss for row in results[1].phases[0].epochs]


def test_folds_share_them(folder):
    kept = []
    for fold in range(3):
        task, chosen = resolved(folder, "partial", fold=fold)
        with trainer.prepare(task, chosen, lambda event: None) as session:
            found = extracted(session, chosen)
        kept.append(found.cost.images)
        assert len(found.valid) + len(found.train) // chosen.views == len(session.table.rows)
    assert kept[0] > 0 == kept[1] == kept[2]


@pytest.mark.parametrize("flags", [{"seed": 5}, {"augment": "strong"}, {"rotate": 40.0}, {"flip": "both"}, {"size": 40}, {"arch": "test_vit"}])
def test_another_view_is_made_anew(folder, flags):
    for i, changed in enumerate(({}, flags)):
        task, chosen = resolved(folder, "partial", **changed)
        with trainer.prepare(task, chosen, lambda event: None) as session:
            cost = extracted(session, chosen).cost
        assert cost.images if i == 0 else cost.images >= len(session.table.part("train"))


def test_feature_loader_takes_whole_batches():
    import numpy as np

    array = np.arange(10, dtype=np.float16)[:, None]
    part = features.Part([array, array + 100], [np.arange(5), np.arange(5)], torch.arange(5).repeat(2))
    cpu = torch.device("cpu")
    shuffled = list(head_module.FeatureLoader(part, 4, True, cpu))
    assert [len(y) for _, y in shuffled] == [4, 4]
    assert all(torch.equal(x[:, 0].long() % 100, y.as_subclass(torch.Tensor)) for x, y in shuffled)
    ordered = list(head_module.FeatureLoader(part, 4, False, cpu))
    assert torch.cat([x for x, _ in ordered])[:, 0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_head_batches_grow_with_the_set():
    assert [head_module.choose_head_batch(count, 64) for count in (100, 3_000, 10_000, 60_000)] == [64, 64, 200, 512]
    assert head_module.choose_head_batch(60_000, 1024) == 1024


def test_a_full_disk_is_one_clear_error(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    task, chosen = resolved(folder, "partial")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        monkeypatch.setattr(features, "_write_file", full)
        with pytest.raises(DataError, match="cannot keep features in .*: No space left on device"):
            extracted(session, chosen)


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
