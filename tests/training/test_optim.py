"""The fused optimizer: what fastai's own Adam does, whatever the weights' order in memory, also after its state was kept in a file."""

import copy
from types import SimpleNamespace

import pytest
import torch
from fastai.optimizer import Adam
from torch import nn

from tlfast.training.optim import FusedAdam, build_adam


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().to(memory_format=torch.channels_last)


def optimizer(kind, model):
    made = kind([list(model[:3].parameters()), list(model[3:].parameters())], lr=1e-2, wd=0.1)
    for p in model[1].parameters():
        made.state[p]["do_wd"] = False
    return made


def trained(kind, model, made, steps, begin=0):
    images = torch.randn(16, 3, 9, 9, dtype=torch.double, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=torch.channels_last)
    for i in range(begin, begin + steps):
        made.set_hypers(mom=0.95 - 0.005 * i, lr=slice(1e-3, 1e-2))
        model(images).square().sum().backward()
        made.step()
        made.zero_grad()


def differ(a, b):
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_does_what_fastais_own_does():
    start, plain, fused = network(), network(), network()
    for kind, model in ((Adam, plain), (FusedAdam, fused)):
        trained(kind, model, optimizer(kind, model), 20)
    assert differ(plain, fused) < 1e-9 and differ(start, fused) > 1e-2


@pytest.mark.parametrize("kind", [FusedAdam, Adam])
def test_it_goes_on_from_a_state_that_was_kept_without_channels_last(kind):
    whole, halted = network(), network()
    trained(FusedAdam, whole, optimizer(FusedAdam, whole), 10)
    first = optimizer(kind, halted)
    trained(kind, halted, first, 5)
    kept = copy.deepcopy(first.state_dict())
    state = [{k: v.contiguous() if isinstance(v, torch.Tensor) else v for k, v in each.items()} for each in kept["state"]]
    assert any(each["grad_avg"].stride() != p.stride() for each, p in zip(state, halted.parameters(), strict=True)), "or this tests nothing"
    second = optimizer(FusedAdam, halted)
    second.load_state_dict({"state": state, "hypers": kept["hypers"]})
    trained(FusedAdam, halted, second, 5, begin=5)
    assert differ(whole, halted) < 1e-9


def test_gradients_in_another_order_are_not_mixed_up():
    plain, fused = network(), network()
    for kind, model in ((Adam, plain), (FusedAdam, fused)):
        made = optimizer(kind, model)
        for p in model.parameters():
            p.grad = torch.arange(p.numel(), dtype=torch.double).view(p.shape).contiguous() - 20
        made.step()
    assert differ(plain, fused) < 1e-12


def test_a_parameter_without_gradient_stays():
    model = network()
    before = copy.deepcopy(model.state_dict())
    made = optimizer(FusedAdam, model)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    made.step()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["6.weight"]


def test_devices_without_such_kernels_get_fastais_own():
    assert type(build_adam([nn.Parameter(torch.zeros(2))], 1e-3)) is FusedAdam
    assert type(build_adam([[nn.Parameter(torch.zeros(2, device="meta"))]], 1e-3)) is type(Adam([nn.Parameter(torch.zeros(2))], 1e-3))


@pytest.mark.parametrize(("device", "is_fused"), [("cpu", True), ("cuda", True), ("mps", True), ("xla", False)])
def test_the_fused_kernels_are_used_where_torch_has_them(device, is_fused):
    class Weight:
        def __init__(self):
            self.device = SimpleNamespace(type=device)

    p = Weight()
    assert isinstance(build_adam([[p]], 1e-3), FusedAdam) == is_fused
