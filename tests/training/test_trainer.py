from __future__ import annotations

import random
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.interruption import train_way
from tests.helpers.training import resolved
from tlfast.core import Journal, Settings, ignore_event, runs
from tlfast.core.errors import TrainingError
from tlfast.core.events import Note
from tlfast.data import ImageTable
from tlfast.data.sources import open_data
from tlfast.data.types import Unreadable
from tlfast.evaluation import predictions
from tlfast.export.weights import load_model
from tlfast.training import OpenPhase, Phase, activations, batchnorm, trainer
from tlfast.training.strategies import PhasePlan, depth, full, get_strategy
from tlfast.training.types import EpochEnd


@pytest.mark.parametrize("strategy", ["partial", "full"])
def test_same_seed_same_metrics_other_seed_others(make, strategy):
    def key(seed):
        result = make(strategy, seed=seed, lr="auto")
        weights = Path(result.folder, "model.safetensors").read_bytes()
        return weights, result.evaluation, [(row.train_loss, row.valid_loss) for phase in result.phases for row in phase.epochs], [p.lr for p in result.phases]

    first = key(1)
    assert key(1) == first
    assert key(2) != first


def test_exported_model_is_the_trained_one(trained_run):
    model = load_model(runs.read_run(trained_run.full))
    assert torch.isfinite(model(torch.zeros(1, 3, 32, 32))).all()
    with trainer.prepare(*resolved(trained_run.images, "full"), lambda event: None) as session:
        assert model.state_dict().keys() == session.learn.model.state_dict().keys()


@pytest.mark.parametrize(("accuracy", "kept"), [(1.1, True), (-0.1, False)])
def test_a_phase_must_beat_the_one_it_starts_from(folder, accuracy, kept):
    task, chosen = resolved(folder, "full", freeze_epochs=1)
    events = []
    with trainer.prepare(task, chosen, events.append) as session:
        plans = list(get_strategy("full").phases(session, chosen))
        head, _ = trainer.fit_within_memory(session, plans[0], chosen, None)
        head = replace(head, epochs=[replace(row, accuracy=accuracy) for row in head.epochs])
        before = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        phase, _ = trainer.fit_within_memory(session, plans[1], chosen, head)
        after = session.learn.model.state_dict()
    assert (phase.kept_epoch == 0) == kept == all(torch.equal(before[name], after[name]) for name in before)
    assert any("its weights are restored. Try more --epochs, or a lower --lr" in event.note for event in events if isinstance(event, Note)) == kept


@pytest.mark.parametrize(("way", "more"), [("full", {"freeze_epochs": 0}), ("full", {"freeze_epochs": 0, "mixup": 0.4}), ("head and BatchNorm", {"epochs": 3})])
def test_out_of_memory_halves_the_batch(way, more, pictures, tmp_path, monkeypatch):
    from fastai.learner import Learner

    step, sizes = Learner._do_one_batch, []

    def short(self):
        images = len(self.yb[0])
        step(self)
        if self.training and len(self.model) == 2 and images > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(images)

    monkeypatch.setattr(Learner, "_do_one_batch", short)
    said = []
    result = train_way(way, pictures, tmp_path, lambda event: said.append(getattr(event, "note", "")), lr="3e-3", **more)
    halved = [note for note in said if note.startswith("out of memory with")]
    assert [note.split()[4] for note in halved] == ["8", "4"] and len(result.phases[0].epochs) == 3
    assert [trainer._halve_batch(replace(resolved(pictures, "full")[1], bs=bs), 1).bs for bs in (1, 2, 3, 5)] == [1, 2, 2, 2]
    with pytest.raises(TrainingError, match="out of memory on .* at --bs 8") as caught:
        train_way("full", pictures, tmp_path, lr="3e-3", freeze_epochs=0, auto_bs=False)
    assert "smaller --bs or --size" in caught.value.hint


@pytest.mark.parametrize("way", ["full", "depth"])
def test_passes_with_adapted_statistics_and_of_the_evaluation_fit_into_memory(way, pictures, tmp_path, monkeypatch):
    longest = []

    def limit(convert):
        def short(x):
            if len(x) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            longest.append(len(x))
            return convert(x)

        return short

    for module in (batchnorm, activations, predictions):
        monkeypatch.setattr(module, "to_network_input", limit(module.to_network_input))
    notes = []
    result = train_way(way, pictures, tmp_path, lambda event: notes.append(getattr(event, "note", "")), lr="3e-3")
    assert len(result.phases) == 2 and max(longest) == 4
    assert [note for note in notes if note.startswith("out of memory with")] == [
        "out of memory with 8 images in a batch: using half as many, and twice as many batches per step"
    ]


def test_the_memory_of_the_phase_before_is_free_when_a_phase_opens(monkeypatch):
    order = []
    monkeypatch.setattr(trainer, "collect_garbage", lambda device: order.append(device))

    @contextmanager
    def opened(attempt):
        order.append("opened")
        yield None

    learn = SimpleNamespace(model=torch.nn.Linear(1, 1), loss_func=None, dls=SimpleNamespace(device="gpu"))
    plan = PhasePlan("all layers", 1, opened)
    chosen = Settings(task="t", bs=8)
    trainer.run_within_memory(SimpleNamespace(learn=learn, journal=Journal()), plan, chosen, lambda phase, attempt: order.append("fitted"))
    assert order == ["gpu", "opened", "fitted"]


def test_the_speed_with_accumulated_batches_counts_all_images(pictures, tmp_path):
    said = []
    train_way("full", pictures, tmp_path, said.append, lr="3e-3", freeze_epochs=0, accumulate=3)
    ends = [event for event in said if isinstance(event, EpochEnd)]
    images = len(open_data(*resolved(pictures, "full"), ignore_event).part("train"))
    for end in ends:
        assert end.last.images_per_second * end.row.seconds > images - 8  # the last, smaller batch is dropped


def test_other_processes_know_of_a_batch_that_was_halved_by_the_first_one_alone(pictures, monkeypatch):
    task, chosen = resolved(pictures, "full", freeze_epochs=1)
    with trainer.prepare(task, chosen, ignore_event) as session:
        head = next(iter(get_strategy("full").phases(session, chosen)))
        received = [None, Phase("head", 1e-3, 1e-3, [], 0, 0.0, 0.0), 1]  # no finished phase, that of the first process, its halvings
        monkeypatch.setattr(trainer, "get_strategy", lambda name: SimpleNamespace(phases=lambda *arguments: [head]))
        monkeypatch.setattr(trainer.processes, "rank", lambda: 1)
        monkeypatch.setattr(trainer.processes, "broadcast", lambda value: received.pop(0))
        trainer.fit(session, chosen)
    assert session.journal.facts.halvings == 1 and not received


def test_loaders_of_another_batch_size_shuffle_by_the_seed(pictures):
    task, chosen = resolved(pictures, "full", bs=8)
    states = []
    with trainer.prepare(task, chosen, ignore_event) as session:
        for bs in (4, 8, 4):
            random.random()  # whatever was drawn before, as by the timing of batches
            session.use_batch_size(replace(chosen, bs=bs))
            assert session.learn.dls.train.bs == bs
            states.append(session.learn.dls.train.rng.getstate())
    assert states[0] == states[2]


def test_out_of_memory_beside_other_processes_ends_all_of_them(pictures, tmp_path, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    task, chosen = resolved(pictures, "full", freeze_epochs=0)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        (plan,) = get_strategy("full").phases(session, chosen)
        plan = replace(plan, open=lambda attempt: nullcontext(OpenPhase(session.learn)))
        monkeypatch.setattr(trainer, "fit_phase", fail)
        monkeypatch.setattr(trainer, "open_data_parallel", lambda learn, sync_bn: nullcontext())
        monkeypatch.setattr(trainer.processes, "world_size", lambda: 2)
        with pytest.raises(trainer.processes.HalveBatchError, match="out of memory in process 0 at --bs 8") as caught:
            trainer.fit_within_memory(session, plan, chosen, None)
    assert caught.value.phase == "all layers"
    assert session.journal.facts.halvings == 0  # is for the caller, who knows the folder


@pytest.mark.parametrize(("way", "module", "name"), [("full", full, "_open_all_layers"), ("depth", depth, "_open_upper")])
def test_a_halved_batch_starts_with_the_memory_of_the_failed_one_free(way, module, name, pictures, tmp_path, monkeypatch):
    from fastai.learner import Learner

    backward, graphs, alive, stores = Learner._backward, [], [], []

    def short(self):
        if self.training and len(self.model) == 2 and not graphs:
            backward(self)
            graphs.extend(weakref.ref(tensor) for tensor in (self.pred, self.loss, self.loss_grad, *(p.grad for p in self.model.parameters())))
            raise torch.OutOfMemoryError("CUDA out of memory")
        backward(self)

    open_last = getattr(module, name)

    @contextmanager
    def opened(session, *arguments):
        alive.append([ref() for ref in graphs if ref() is not None])
        with open_last(session, *arguments) as phase:
            stores.append(session.learn.dls.train.pixels)
            yield phase

    monkeypatch.setattr(Learner, "_backward", short)
    monkeypatch.setattr(module, name, opened)
    train_way(way, pictures, tmp_path, lr="3e-3", freeze_epochs=0)
    assert len(graphs) > 3 and alive == [[], []]
    assert stores[0].data_ptr() == stores[1].data_ptr()


def test_of_many_unreadable_images_some_are_named():
    table = ImageTable((), (), "photos", unreadable=tuple(Unreadable(f"{number}.png", "empty") for number in range(25)))
    notes = trainer._describe_skipped(table)
    assert len(notes) == 21 and notes[0] == "skipped 0.png: empty" and notes[-1].startswith("skipped 5 more images")
    assert len(trainer._describe_skipped(replace(table, unreadable=table.unreadable[:20]))) == 20
