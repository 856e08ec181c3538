"""The learning rate finder."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from tests.helpers.training import resolved
from tlfast.core import Note, RunError
from tlfast.training import lr_finder, plots, trainer
from tlfast.training.callbacks.accumulation import AccumulateBatches
from tlfast.training.types import RateCurve


def test_a_flat_curve_gives_no_rate_by_chance():
    rates = [1e-5 * 10 ** (i / 12) for i in range(60)]
    flat = [1.6 + 0.01 * (i % 3) if rate < 1e-2 else 1.6 + 30 * rate for i, rate in enumerate(rates)]
    assert lr_finder.find_divergence(rates, flat) == pytest.approx(1.2e-2, rel=0.25)
    assert lr_finder.find_divergence(rates, [0.9, *flat[1:]]) == lr_finder.find_divergence(rates, flat), "an easy first batch says nothing"
    falling = [3 - i / 60 for i in range(60)]
    assert lr_finder.find_divergence(rates, falling) == rates[-1]


@pytest.mark.parametrize(
    ("lr", "suggested", "climbs_from", "rate", "source"),
    [
        ("auto", 1e-6, 1.0, 2e-3, "customary"),
        ("auto", 3e-4, 1.0, 2e-3, "customary"),
        ("auto", 1e-6, 1e-3, 3.3e-4, "limited by the finder"),
        ("finder", 1e-6, 1.0, 2e-3, "finder"),
        ("finder", 1e-6, 1e-3, 2e-4, "finder"),
        ("finder", 3e-4, 1.0, 6e-3, "finder"),
        ("finder", 1e-1, 1.0, lr_finder.MAX_RATE, "finder"),
    ],
)
def test_the_customary_rate_is_limited_by_the_curve_and_the_finders_rate_is_its_suggestion(monkeypatch, lr, suggested, climbs_from, rate, source):
    learn = small_learner(bs=64)
    learn.recorder.lrs = [1e-5 * 10 ** (i / 12) for i in range(61)]
    learn.recorder.losses = [torch.tensor(1.0 if rate < climbs_from * 0.999 else 9.0) for rate in learn.recorder.lrs]
    monkeypatch.setattr(Learner, "lr_find", lambda self, **asked: SimpleNamespace(suggest_minimum=suggested), raising=False)
    curve = lr_finder.find_rate(learn, "upper stages", 1, lr_finder.RateRule(scale=20.0, customary=2e-3, least=2e-3), lr, lambda event: None)
    assert curve.rate == pytest.approx(rate, rel=0.25)
    assert curve.source == source


def test_a_loss_that_climbs_at_once_is_the_reason_in_the_note():
    learn, notes, factors = small_learner(bs=64), [], itertools.count()
    learn.loss_func = lambda logits, targets: (1 + logits.sum() ** 2) * 10.0 ** next(factors)
    curve = lr_finder.find_rate(learn, "head", 5, lr_finder.RateRule(customary=2e-3), "auto", notes.append)
    assert curve.rate == lr_finder.FALLBACK_RATE
    assert [note.note for note in notes if isinstance(note, Note)] == [
        "the learning-rate finder failed (the loss climbed, or was not finite, within the first steps): using 0.001"
    ]


def test_a_full_temporary_folder_is_an_error_and_no_failed_search(tmp_path):
    learn = small_learner(bs=64)
    learn.path = tmp_path / "file"
    learn.path.write_text("no folder")
    with pytest.raises(RunError, match="cannot write to") as error:
        lr_finder.find_rate(learn, "head", 5, lr_finder.RateRule(customary=2e-3), "auto", lambda event: None)
    assert "TMPDIR" in error.value.hint


def test_the_curve_of_a_failed_search_is_drawn_empty(tmp_path):
    for losses in ([], [float("nan")] * 3):
        curve = RateCurve([1e-4] * len(losses), losses, 1e-3, 0.1, 1e-3, 1e-3, "customary")
        assert plots.plot_rate_curve(curve, tmp_path / "curve.png", "t").stat().st_size > 1000


class StepRecorder(Callback):
    order = 70

    def __init__(self, call):
        self.record = call

    def after_batch(self):
        self.record()


def small_learner(bs):
    loaders = DataLoaders(*[torch.utils.data.DataLoader([(torch.zeros(2), 0)] * 64, batch_size=bs) for _ in range(2)])
    for loader in loaders.loaders:
        loader.bs = bs
    return Learner(loaders, torch.nn.Linear(2, 2), torch.nn.functional.cross_entropy)


def test_the_customary_rate_grows_with_the_square_root_of_the_images_per_step():
    rule = lr_finder.RateRule(customary=2e-3)
    learn = small_learner(bs=16)
    assert rule.choose("auto", 1.0, limit=1.0, batch=lr_finder.count_batch(learn)) == (1e-3, "customary")
    assert lr_finder.RateRule(customary=2e-3, by_batch=False).choose("auto", 1.0, limit=1.0, batch=16) == (2e-3, "customary")
    learn.add_cb(GradientAccumulation(64))
    assert rule.choose("auto", 1.0, limit=1.0, batch=lr_finder.count_batch(learn)) == (2e-3, "customary")


def test_the_finder_steps_after_each_batch_although_gradients_are_accumulated():
    learn = small_learner(bs=2)
    accumulate = AccumulateBatches(16)
    learn.add_cb(accumulate)
    weights = [learn.model.weight.detach().clone()]
    learn.add_cb(StepRecorder(lambda: weights.append(learn.model.weight.detach().clone())))
    learn.loss_func = lambda logits, targets: 1 + logits.square().sum() + learn.model.weight.square().sum()
    lr_finder.find_rate(learn, "head", 1, lr_finder.RateRule(customary=2e-3), "auto", lambda event: None)
    assert len(weights) > 20 and all(not torch.equal(one, next_) for one, next_ in itertools.pairwise(weights))
    assert accumulate in learn.cbs and lr_finder.count_batch(learn) == 32


def test_the_finder_takes_no_more_steps_than_the_phase():
    assert [lr_finder.count_finder_steps(n) for n in (1, 20, 40, 5000)] == [20, 20, 40, 60]


def fail_in_search(monkeypatch, error, step):
    """Make step number `step` of each search raise `error`, once; return the learning rates of all searches."""
    from fastai.callback.schedule import LRFinder

    seen, before = [], LRFinder.before_batch

    def count(self):
        before(self)
        seen.append(self.train_iter)
        if len(seen) == step:
            raise error

    monkeypatch.setattr(LRFinder, "before_batch", count)
    return seen


def test_out_of_memory_is_no_failed_search(folder, monkeypatch):
    notes = []
    searched = fail_in_search(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), 5)
    task, chosen = resolved(folder, "full", lr="auto", freeze_epochs=0, epochs=1)
    with trainer.prepare(task, chosen, lambda event: notes.append(getattr(event, "note", ""))) as session:
        phases, _ = trainer.fit(session, chosen)
    assert any(note.startswith("out of memory with 8 images") for note in notes) and not any("finder failed" in note for note in notes)
    assert len(phases[0].curve.rates) == len(searched) - 5 > 10


def test_a_failed_search_restores_the_weights(folder, monkeypatch):
    notes = []
    fail_in_search(monkeypatch, RuntimeError("not a matter of memory"), 5)
    task, chosen = resolved(folder, "full", lr="auto", freeze_epochs=0, epochs=1)
    with trainer.prepare(task, chosen, lambda event: notes.append(getattr(event, "note", ""))) as session:
        before = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        curve = lr_finder.find_rate(session.learn, "all layers", 1, lr_finder.RateRule(customary=1e-2), "auto", session.on_event)
        after = session.learn.model.state_dict()
    assert curve.suggestion == curve.rate == lr_finder.FALLBACK_RATE and any("finder failed" in note and "not a matter of memory" in note for note in notes)
    assert all(torch.equal(before[name], after[name]) for name in before)
