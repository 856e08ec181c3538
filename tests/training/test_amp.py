"""Mixed precision: its choice, and its effect."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.training import resolved, watched
from tlfast import tasks
from tlfast.core import Journal, Settings
from tlfast.core.errors import UsageError
from tlfast.core.journal import Facts
from tlfast.tasks import resolve
from tlfast.training import amp, trainer


def test_bf16_reaches_the_network_on_a_cpu_and_the_weights_stay_float32(folder):
    assert set(watched(folder, amp="off")[0].formats) == {torch.float32}
    seen, phase = watched(folder, amp="bf16")
    assert set(seen.formats) == {torch.bfloat16} and phase.precision == "bf16"


def test_a_resumed_training_keeps_its_precision_on_a_device_of_the_same_type(monkeypatch):
    monkeypatch.setattr(amp, "choose_step_precision", lambda model, device, settings, shape: "bf16" if device.type == "cuda" else "off")

    def settle(journal, kind):
        session = SimpleNamespace(journal=journal, learn=SimpleNamespace(dls=SimpleNamespace(device=torch.device(kind))))
        return amp.settle_step_precision(session, torch.nn.Linear(1, 1), Settings(task="t"), (3, 32, 32))

    journal = Journal()
    assert [settle(journal, kind) for kind in ("cuda", "cpu", "cuda")] == ["bf16", "off", "bf16"]
    assert settle(Journal(facts=Facts(precision="fp16")), "cuda") == "fp16", "of an earlier version"


def test_fp16_is_refused_without_a_gpu(folder):
    with pytest.raises(UsageError) as error:
        watched(folder, amp="fp16", device="cpu")
    assert error.value.message == "--amp fp16 needs a CUDA device"


def test_the_faster_format_is_chosen_once(folder, monkeypatch):
    timed = []

    def seconds(model, shape):
        timed.append(shape[0])
        return {"off": 2.0, "bf16": 1.0 if shape[0] == 8 else 1.9}

    monkeypatch.setattr(amp, "_time_steps", seconds)
    monkeypatch.setattr(amp, "_time_passes", lambda network, shape: {"off": 1.0, "bf16": 1.0})
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: True)
    assert [watched(folder, device="cpu", bs=bs)[1].precision for bs in (8, 8, 6)] == ["bf16", "bf16", "off"] and timed == [8, 6]


def test_timing_leaves_the_model_as_it_was(folder):
    task, chosen = resolved(folder, "full")
    with trainer.prepare(task, chosen, lambda event: None) as session:
        before = copy.deepcopy(session.learn.model.state_dict())
        assert all(seconds > 0 for seconds in amp._time_steps(session.learn.model, (chosen.bs, 3, chosen.size, chosen.size)).values())
        after = session.learn.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_choice_is_cached_by_all_that_it_depends_on(monkeypatch):
    timed = []
    monkeypatch.setattr(amp, "_time_steps", lambda model, shape: timed.append(shape) or {"off": 1.0, "bf16": 2.0})
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: True)
    monkeypatch.setattr(amp, "count_cores", lambda: 2)
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"amp": "auto", "bs": 8})

    def is_timed(features=4, bs=8, shape=(3, 32, 32)):
        before = len(timed)
        assert amp.choose_step_precision(torch.nn.Linear(features, 2), torch.device("cpu"), replace(chosen, bs=bs), shape) == "off"
        return len(timed) > before

    assert is_timed() and not is_timed()
    assert is_timed(features=5) and is_timed(bs=9) and is_timed(shape=(3, 40, 40))
    monkeypatch.setattr(amp, "count_cores", lambda: 4)
    assert is_timed()
    monkeypatch.setattr(amp.torch, "__version__", "0")
    assert is_timed() and not is_timed()


def raise_once(learn, at, error):
    """Make the first convolution raise `error` in its call number `at`, once; return the list of the calls' formats."""
    formats = []

    def hook(module, given, output):
        formats.append(output.dtype)
        if len(formats) == at:
            raise error

    next(module for module in learn.model.modules() if isinstance(module, torch.nn.Conv2d)).register_forward_hook(hook)
    return formats


def test_an_error_in_the_forward_pass_leaves_no_autocast_behind(folder):
    task, chosen = resolved(folder, "full", amp="bf16", freeze_epochs=0, epochs=1)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        formats = raise_once(session.learn, 2, torch.OutOfMemoryError("CUDA out of memory"))
        trainer.fit(session, chosen)
        assert not torch.is_autocast_enabled("cpu")
        formats.clear()
        trainer.predict_valid(session, replace(chosen, amp="off"))
    assert set(formats) == {torch.float32}


def test_emulated_bf16_is_not_chosen(monkeypatch):
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"amp": "auto"})
    for native, format in ((False, "fp16"), (True, "bf16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: native or including_emulation)
        for choose in (amp.choose_step_precision, amp.choose_pass_precision):
            assert choose(torch.nn.Linear(2, 2), torch.device("cuda", 0), chosen, (3, 32, 32)) == format


@pytest.mark.parametrize(("seconds", "wanted"), [({"off": 1.29, "bf16": 1.0}, "off"), ({"off": 1.31, "bf16": 1.0}, "bf16")])
def test_frozen_passes_are_in_bf16_if_that_is_clearly_faster(monkeypatch, seconds, wanted):
    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"amp": "auto"})
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: True)
    monkeypatch.setattr(amp, "_time_passes", lambda network, shape: seconds)
    assert amp.choose_pass_precision(torch.nn.Linear(2, 2), torch.device("cpu"), chosen, (3, 32, 32)) == wanted


def test_emulated_bf16_is_not_timed_on_a_cpu(monkeypatch):
    def fail(model, shape):
        raise AssertionError("timed")

    chosen = resolve.resolve_settings(tasks.get_task("fer"), None, {"amp": "auto"})
    monkeypatch.setattr(amp, "_time_steps", fail)
    monkeypatch.setattr(amp, "_time_passes", fail)
    monkeypatch.setattr(amp, "has_bf16_kernels", lambda: False)
    for choose in (amp.choose_step_precision, amp.choose_pass_precision):
        assert choose(torch.nn.Linear(2, 2), torch.device("cpu"), chosen, (3, 32, 32)) == "off"


def test_timing_passes_leaves_the_mode_of_the_network():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(network.state_dict())
    seconds = amp._time_passes(network, (2, 3, 8, 8))
    assert set(seconds) == {"off", "bf16"} and network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("strategy", ["partial", "depth", "full"])
def test_frozen_layers_run_in_the_chosen_precision_and_their_cache_depends_on_it(folder, strategy):
    computed = []
    for precision in ("off", "bf16", "off"):
        depth = {"depth": "1"} if strategy == "depth" else {}
        task, chosen = resolved(folder, strategy, amp=precision, epochs=1, **depth)
        with trainer.prepare(task, chosen, lambda event: None) as session:
            phases, _ = trainer.fit(session, chosen)
        features = [phase.features for phase in phases if phase.features][-1]
        assert features.precision == precision
        computed.append(features.images)
    assert computed[0] == computed[1] > 0 and computed[2] == 0
