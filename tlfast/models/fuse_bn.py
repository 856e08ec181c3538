"""A frozen network made cheaper to run: BatchNorm, which in eval mode is a fixed scale and shift, goes into the convolution before it."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers import Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PLAIN = (nn.Conv2d, Conv2dSame)  # others, such as weight-standardised ones, do more than multiply by their weights


class _Tracer(fx.Tracer):
    """Looks into every module but convolutions, norms and other leaves of torch; timm's norm with an activation is such a leaf too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (nn.BatchNorm2d, *PLAIN)) or super().is_leaf_module(module, name)


def fuse_bn(body: nn.Module) -> nn.Module:
    """Return a network in eval mode that gives what `body` gives, to rounding: a copy with folded norms, or `body` itself if it cannot be traced.

    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
    """
    body.eval()
    if not any(isinstance(module, nn.BatchNorm2d) for module in body.modules()):
        return body
    try:
        own = copy.deepcopy(body)
        graph = _Tracer().trace(own)
    except Exception:  # fx cannot follow a network whose path depends on what it sees, and says so in many ways
        return body
    modules = dict(own.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if calls[before.target] > 1 or calls[node.target] > 1:  # weights that serve twice would be folded twice
            continue
        conv, norm = modules[before.target], modules[node.target]
        if type(conv) in PLAIN and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            _replace(own, modules, before.target, fuse_conv_bn_eval(conv, norm))
            _replace(own, modules, node.target, _split_remainder(norm))
    return fx.GraphModule(own, graph).to(memory_format=torch.channels_last)


def _split_remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what timm's BatchNormAct2d does after the norm."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))


def _replace(root: nn.Module, modules: dict[str, nn.Module], name: str, by: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(modules[parent] if parent else root, own, by)
    modules[name] = by
