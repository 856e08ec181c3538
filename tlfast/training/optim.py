"""fastai's Adam with torch's fused kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fastai.optimizer import Adam, Optimizer
from torch.optim.adamw import adamw

FUSED_ON = ("cpu", "cuda", "mps")  # device types with fused kernels in torch >= 2.6


def build_adam(params: Sequence[Any], lr: float, **defaults: float) -> Optimizer:
    """Return an optimizer for `Learner(opt_func=...)`: `FusedAdam` if the device has fused kernels, else fastai's `Adam`.

    `params` holds parameters, or lists of them, one per group.
    """
    fused = FusedAdam(params, lr, **defaults)
    return fused if all(p.device.type in FUSED_ON for p, *_ in fused.all_params()) else Adam(params, lr, **defaults)


class FusedAdam(Optimizer):
    """Adam with decoupled weight decay, by one call per parameter group (Loshchilov and Hutter 2019, arXiv 1711.05101).

    The update equals that of fastai's `Adam` to rounding, with fewer small operations; see docs/benchmarks.md, "Training".
    """

    def __init__(self, params: Sequence[Any], lr: float, mom: float = 0.9, sqr_mom: float = 0.99, eps: float = 1e-5, wd: float = 0.01) -> None:
        super().__init__(params, [], lr=lr, mom=mom, sqr_mom=sqr_mom, eps=eps, wd=wd)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group, hyper in zip(self.param_lists, self.hypers, strict=True):
            trained = [p for p in group if p.grad is not None]
            for decays in (True, False):  # fastai exempts biases and BatchNorm parameters from weight decay
                chosen = [p for p in trained if self.state[p].get("do_wd", True) == decays]
                if chosen:
                    self._update(chosen, hyper, hyper["wd"] if decays else 0.0)

    def _update(self, params: Sequence[torch.Tensor], hyper: dict[str, float], weight_decay: float) -> None:
        states = [self._state(p) for p in params]
        adamw(
            list(params),
            [_match_layout(p, p.grad) for p in params if p.grad is not None],
            [state["grad_avg"] for state in states],
            [state["sqr_avg"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=hyper["lr"],
            beta1=hyper["mom"],
            beta2=hyper["sqr_mom"],
            eps=hyper["eps"],
            weight_decay=weight_decay,
        )

    def _state(self, p: torch.Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        if "step" not in state:
            state |= {"grad_avg": torch.zeros_like(p), "sqr_avg": torch.zeros_like(p), "step": torch.zeros((), device=p.device)}
        return state

    def zero_grad(self) -> None:
        for p, *_ in self.all_params():
            p.grad = None

    def load_state_dict(self, sd: dict[str, Any]) -> None:
        super().load_state_dict(sd)
        for p, state in self.state.items():
            if "step" in state:
                averages = {name: _match_layout(p, state[name]) for name in ("grad_avg", "sqr_avg")}
                state |= averages | {"step": torch.as_tensor(float(state["step"]), device=p.device)}  # fastai's Adam counts in integers


def _match_layout(p: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return values in the memory layout of a parameter. Fused kernels ignore strides: weights are channels-last, tensors from a file are not."""
    return values if values.stride() == p.stride() else torch.empty_like(p).copy_(values)
