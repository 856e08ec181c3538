"""Ways to train that a user may ask for, and the number format."""

from __future__ import annotations

import copy

import pytest
import torch
from fastai.callback.core import Callback

from tests.helpers.training import resolved
from tlfast.core.errors import UsageError
from tlfast.training import amp, trainer
from tlfast.training.callbacks import requested


class Seen(Callback):
    """Notes the size of each training and validation batch, and the precision of the network's first layer."""

    order = 5

    def __init__(self) -> None:
        self.sizes, self.formats, self.kinds = {True: [], False: []}, [], set()

    def before_fit(self) -> None:
        first = next(module for module in self.learn.model.modules() if isinstance(module, torch.nn.Conv2d))
        self.hook = first.register_forward_hook(lambda module, given, output: self.noted(given[0], output))

    def noted(self, x, output) -> None:
        self.sizes[self.training].append(x.shape[-1])
        self.formats.append(output.dtype)
        self.kinds.add((type(x), x.is_contiguous(memory_format=torch.channels_last)))

    def after_fit(self) -> None:
        self.hook.remove()


def watched(folder, **flags):
    task, chosen = resolved(folder, flags.pop("strategy", "full"), **{"epochs": 3, **flags})
    with trainer.prepare(task, chosen, lambda event: None) as session:
        seen = Seen()
        session.learn.add_cb(seen)
        phases, _ = trainer.fit(session, chosen)
    return seen, phases[-1]


def test_sizes_grow_epoch_by_epoch_and_validation_is_at_the_full_one(folder):
    seen, _ = watched(folder, sizes="16,24")
    steps = len(seen.sizes[True]) // 3
    assert seen.sizes[True] == [16] * steps + [24] * steps + [32] * steps
    assert set(seen.sizes[False]) == {32}


@pytest.mark.parametrize("flags", [{}, {"mixup": 0.4}, {"strategy": "partial", "train_bn": True}], ids=str)
def test_the_network_is_given_plain_tensors_with_channels_last(folder, flags):
    seen, _ = watched(folder, **flags)
    assert seen.kinds == {(torch.Tensor, True)}


def test_bf16_reaches_the_network_on_a_cpu_and_the_weights_stay_float32(folder):
    assert set(watched(folder, amp="off")[0].formats) == {torch.float32}
    seen, phase = watched(folder, amp="bf16")
    assert set(seen.formats) == {torch.bfloat16} and phase.precision == "bf16"


def test_fp16_is_refused_without_a_gpu(folder):
    with pytest.raises(UsageError) as error:
        watched(folder, amp="fp16", device="cpu")
    assert error.value.message == "--amp fp16 needs a CUDA device"


def test_the_faster_format_is_chosen_once(folder, monkeypatch):
    timed = []

    def seconds(learn, shape):
        timed.append(shape[0])
        return {"off": 2.0, "bf16": 1.0 if shape[0] == 8 else 1.9}

    monkeypatch.setattr(amp, "_time_steps", seconds)
    assert [watched(folder, device="cpu", bs=bs)[1].precision for bs in (8, 8, 6)] == ["bf16", "bf16", "off"] and timed == [8, 6]


def test_timing_leaves_the_model_as_it_was(folder):
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        before = copy.deepcopy(session.learn.model.state_dict())
        assert all(seconds > 0 for seconds in amp._time_steps(session.learn, (chosen.bs, 3, chosen.size, chosen.size)).values())
        after = session.learn.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_accumulated_batches_make_one_step(folder):
    steps = {}
    for count in (1, 3):
        task, chosen = resolved(folder, "full", accumulate=count, epochs=3)
        with trainer.prepare(task, chosen, lambda event: None) as session:
            counter = Steps()
            session.learn.add_cb(counter)
            trainer.fit(session, chosen)
        steps[count] = counter.count
    assert steps[1] == 3 * steps[3] > 0


class Steps(Callback):
    count = 0

    def after_step(self) -> None:
        self.count += 1


def test_the_average_is_validated_and_training_goes_on_from_the_weights(folder):
    task, chosen = resolved(folder, "full", ema=True, epochs=3)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        watch = Averages()
        session.learn.add_cb(watch)
        trainer.fit(session, chosen)
    assert all(not torch.equal(a, b) for a, b in zip(watch.trained, watch.validated, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(watch.trained[:-1], watch.resumed, strict=True))


class Averages(Callback):
    """The head's last layer at the end of each epoch's training, in its validation, and at the next epoch's start."""

    order = 63

    def __init__(self) -> None:
        self.trained, self.validated, self.resumed = [], [], []

    def weight(self) -> torch.Tensor:
        return self.learn.model[1][-1].weight.detach().clone()

    def before_train(self) -> None:
        if self.epoch:
            self.resumed.append(self.weight())

    def after_train(self) -> None:
        self.trained.append(self.weight())

    def before_validate(self) -> None:
        self.validated.append(self.weight())


def test_nothing_is_added_unasked(folder):
    assert requested.build_callbacks(resolved(folder, "full")[1]) == []


@pytest.mark.parametrize("sizes", ["64,48", "4", "a", "16,16", "16,", "24,32"])
def test_wrong_sizes_are_refused(folder, sizes):
    with pytest.raises(UsageError, match="--sizes"):
        resolved(folder, "full", sizes=sizes)


def test_fastais_own_way_lets_batchnorm_adapt(folder):
    task, chosen = resolved(folder, "partial", train_bn=True)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body = session.learn.model[0]
        before = copy.deepcopy(body.state_dict())
        (phase,), _ = trainer.fit(session, chosen)
        changed = {name.rsplit(".", 1)[0] for name, value in body.state_dict().items() if not torch.equal(before[name], value)}
        norms = {name for name, module in body.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert phase.name == "head and BatchNorm" and phase.features is None and changed == norms
