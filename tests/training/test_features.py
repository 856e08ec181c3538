"""Features of a frozen backbone: their views, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.training import resolved, train_depth
from tlfast.commands import train
from tlfast.core import cache
from tlfast.core.errors import DataError, UsageError
from tlfast.training import features, trainer


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


def test_a_full_disk_is_one_clear_error(folder, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    task, chosen = resolved(folder, "partial")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        monkeypatch.setattr(features, "_write_file", full)
        with pytest.raises(DataError, match="cannot write features to the cache .*: No space left on device"):
            extracted(session, chosen)


def test_a_cache_that_cannot_be_written_is_read_and_other_features_stay_in_memory(folder, monkeypatch):
    task, chosen = resolved(folder, "partial", views=2)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        extracted(session, chosen)

    def refuse(*arguments):
        raise UsageError("cannot write to the cache")

    monkeypatch.setattr(cache, "check_writable", refuse)
    monkeypatch.setattr(features, "_write_file", refuse)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        found = extracted(session, replace(chosen, views=3))
    assert found.cost.images == len(session.table.part("train")) and len(found.train) == 3 * found.cost.images and found.cost.kept


def test_a_full_disk_while_activations_are_kept_leaves_nothing(folder, monkeypatch):
    def full(folder, batches):
        (folder / features.FILE).write_bytes(next(batches).tobytes())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "_write_file", full)
    with pytest.raises(DataError, match="cannot write features to the cache .*: No space left on device"):
        train_depth(folder, depth="2")
    assert not [entry for entry in cache.list_entries() if entry.kind in ("features", "unfinished")]
