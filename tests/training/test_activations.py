"""Activations of the frozen lower stages: where they are kept, how much room they take, and how they are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.command_line import TINY
from tests.helpers.training import resolved, train_depth
from tlfast.core import TrainingSettings, cache
from tlfast.core.errors import UsageError
from tlfast.models import build, stages
from tlfast.testing import draw_image
from tlfast.training import activations, features, trainer


@pytest.mark.parametrize("store", ["ram", "off"])
def test_without_a_store_on_disk_the_same_is_kept_in_memory(folder, store):
    kept, _ = train_depth(folder, depth="2", augment="none")
    for folder_of_kind in cache.list_entries():
        assert folder_of_kind.kind in ("stores", "features", "digests", "rooms", "timings")
    other, _ = train_depth(folder, depth="2", augment="none", store=store)
    assert all(torch.allclose(kept[name].float(), other[name].float(), atol=1e-5) for name in kept)


def test_int8_takes_half_the_room(folder):
    weights, losses, sizes = [], [], []
    for number_format in ("fp16", "int8"):
        network, phases = train_depth(folder, depth="2", augment="none", cache_format=number_format)
        weights.append(network)
        losses.append(phases[-1].epochs[-1].train_loss)
        sizes.append(sum(entry.size for entry in cache.list_entries() if entry.kind == "features"))
    assert 0.5 < (sizes[1] - sizes[0]) / sizes[0] < 0.6
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_views_give_way_then_stages_where_there_is_no_room(folder):
    task, chosen = resolved(folder, "depth", depth="3", views=4)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body, counts = session.learn.model[0], features.count_images(session.table, chosen)
        shapes = {d: activations.activation_shape(stages.split_at(body, chosen.arch, d, 32), 32) for d in (1, 2, 3)}

        def room(depth, views):
            return activations.activation_gigabytes(shapes[depth], sum(counts[:views]), chosen)

        for wanted in ((3, 4), (3, 2), (2, 4), (2, 1)):
            limited = replace(chosen, cache_gb=room(*wanted) * 1.0001)
            assert activations.fit_to_disk(session, limited) == (str(wanted[0]), wanted[1]), wanted
        with pytest.raises(UsageError, match="no room for cached activations: one view of the topmost stage takes") as caught:
            activations.fit_to_disk(session, replace(chosen, cache_gb=room(1, 1) / 2))
    assert "GB are available" in caught.value.message and caught.value.hint.startswith("Give more --cache-gb, or use")


def test_less_room_is_said_before_training(cli, folder):
    outcome = cli("train", folder, *TINY, "--depth", 3, "--epochs", 1, "--views", 4, "--cache-gb", 0.0003, "--no-onnx")
    assert outcome.code == 0
    assert "depth: the activations of --depth 3 with 4 views need more room than there is: using --depth" in outcome.err


def test_an_epoch_takes_each_image_once_in_one_of_its_views():
    part = features.SplitFeatures([np.arange(40, dtype=np.float16)[:, None] + 100 * view for view in range(3)], [np.arange(40)] * 3, torch.arange(40).repeat(3))
    loader = activations.ActivationLoader(part, 8, True, torch.device("cpu"))
    epochs = [torch.cat([x[:, 0] for x, _ in loader]) for _ in range(2)]
    for taken in epochs:
        assert sorted((taken % 100).tolist()) == list(range(40)) and len(set((taken // 100).tolist())) == 3
    assert not torch.equal(*epochs)
    assert all(torch.equal(x[:, 0].long() % 100, y.as_subclass(torch.Tensor)) for x, y in loader)


def test_the_head_of_a_depth_starts_from_some_of_the_images(folder, monkeypatch):
    monkeypatch.setattr(activations, "HEAD_IMAGES", 10)
    task, chosen = resolved(folder, "depth", depth="2", views=2)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        parts = stages.split_at(session.learn.model[0], chosen.arch, 2, 32)
        kept = features.extract(parts.lower, session, chosen)
        made = activations.compute_features(kept, parts, lambda event: None)
        count = len(session.table.part("train"))
        every = parts.upper(build.to_network_input(kept.train[torch.arange(count)])).detach()
    assert len(made.train) == 10 < count and len(made.valid) == len(session.table.part("valid")) == made.cost.images - 10
    nearest = torch.cdist(made.train[torch.arange(10)], every).min(dim=1)
    assert nearest.values.max() < 1e-2 and len(set(nearest.indices.tolist())) > 5, "they are the plain view of images all over"
    assert torch.equal(kept.train.labels[nearest.indices], made.train.labels)


def test_a_choice_is_kept_while_its_activations_take_the_room(folder, monkeypatch):
    room = [1.0]
    monkeypatch.setattr(activations, "_available_gigabytes", lambda settings, on_disk: room[0])

    def choose(gigabytes, **changes):
        room[0] = gigabytes
        return activations.fit_to_disk(session, replace(chosen, **changes))

    task, chosen = resolved(folder, "depth", depth="2", views=2)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        with pytest.raises(UsageError, match="no room"):
            choose(0.0)
        assert choose(1.0) == ("2", 2), "there is room now"
        assert choose(0.0) == ("2", 2), "taken by the activations of this choice"
        for changes in ({"views": 3}, {"depth": "3"}, {"cache_gb": 0.5}, {"cache_format": "int8"}, {"augment": "none"}):
            with pytest.raises(UsageError, match="no room"):
                choose(0.0, **changes)
        session = replace(session, store=None)
        with pytest.raises(UsageError, match="no room"):
            choose(0.0)  # in memory there is another room
    draw_image(folder / "red" / "0.png", (0, 0, 0), 5, size=(90, 90))
    with trainer.prepare(task, chosen, lambda event: None) as session, pytest.raises(UsageError, match="no room"):
        choose(0.0)


def test_more_room_than_before_is_used(folder, monkeypatch):
    task, chosen = resolved(folder, "depth", depth="2", views=4)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        shape = activations.activation_shape(stages.split_at(session.learn.model[0], chosen.arch, 2, 32), 32)
        rooms = iter([activations.activation_gigabytes(shape, sum(features.count_images(session.table, chosen)[:3]), chosen), 1.0])
        monkeypatch.setattr(activations, "_available_gigabytes", lambda settings, on_disk: next(rooms))
        assert [activations.fit_to_disk(session, chosen) for _ in range(2)] == [("2", 3), ("2", 4)]


def test_a_system_that_does_not_tell_its_free_memory(monkeypatch):
    monkeypatch.setattr(activations, "free_memory_gib", lambda: None)
    monkeypatch.setattr(activations, "total_memory_gib", lambda: 100.0)
    assert 30 < activations._available_gigabytes(TrainingSettings(), on_disk=False) < 54
