"""BatchNorm with the statistics of the batches of all processes.

torch's SyncBatchNorm runs only on GPUs, and its converter drops the activation of timm's `BatchNormAct2d`. Here the layers stay as they are; only
their `forward` is replaced for the time of a training, so that names and exports do not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import processes


@contextmanager
def synchronize_batchnorm(model: nn.Module) -> Iterator[None]:
    """Within the block, BatchNorm layers in training mode use the mean and variance of all processes. All batches must have the same size."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers:
        layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    """Normalize `[b, c, ...]` by the statistics of all processes; in evaluation mode by the running ones."""
    if not layer.training or not layer.track_running_stats:
        return type(layer).forward(layer, x)
    y = _normalize(layer, x.float()).to(x.dtype)
    return layer.act(layer.drop(y)) if isinstance(layer, BatchNormAct2d) else y


def _normalize(layer: _BatchNorm, x: torch.Tensor) -> torch.Tensor:
    dims = [dim for dim in range(x.ndim) if dim != 1]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    count = processes.world_size()
    variance, mean = torch.var_mean(x, dims, correction=0)
    whole_mean = _sum(mean) / count
    whole_variance = _sum(variance + (mean - whole_mean) ** 2) / count
    _update_running(layer, whole_mean.detach(), whole_variance.detach(), count * x.numel() // x.shape[1])
    scale = torch.rsqrt(whole_variance + layer.eps) * (1 if layer.weight is None else layer.weight)
    shift = (0 if layer.bias is None else layer.bias) - whole_mean * scale
    return x * scale.view(shape) + shift.view(shape)


@torch.no_grad()
def _update_running(layer: _BatchNorm, mean: torch.Tensor, variance: torch.Tensor, values: int) -> None:
    """Update the running statistics as torch does: with the unbiased variance of `values` values per channel."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked += 1
    share = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
    layer.running_var.lerp_((variance * values / max(1, values - 1)).to(layer.running_var.dtype), share)


def _sum(x: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _SumOverProcesses.apply(x)
    return total


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes. The gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total
