"""Fusion of BatchNorm layers into the convolutions before them, for faster inference with frozen networks."""

from __future__ import annotations

import copy
from collections import Counter

from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .device import move_network

# Convolutions that only multiply by their weights; subclasses, such as weight-standardized ones, do more.
PLAIN = (nn.Conv2d, Conv2dSame)


class _Tracer(fx.Tracer):
    """Tracer whose leaves are convolutions, norms (also timm's norms with an activation) and the modules of torch."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, (nn.BatchNorm2d, *PLAIN)) or super().is_leaf_module(module, name)


def fuse_bn(body: nn.Module) -> nn.Module:
    """Return a copy of a network in eval mode with its BatchNorm layers fused, or `body` itself if it cannot be traced.

    In eval mode BatchNorm is a fixed scale and shift, which the weights of the convolution before it absorb. The output differs by rounding only.
    Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
    """
    body.eval()
    if not any(isinstance(module, nn.BatchNorm2d) for module in body.modules()):
        return body
    try:
        fused = copy.deepcopy(body)
        graph = _Tracer().trace(fused)
    except Exception:  # fx raises errors of many types for networks with data-dependent control flow
        return body
    _fuse_pairs(fused, graph)
    return move_network(fx.GraphModule(fused, graph), next(body.parameters()).device)


def _fuse_pairs(network: nn.Module, graph: fx.Graph) -> None:
    """Replace, in place, each convolution followed by a norm, if nothing else uses either of them."""
    modules = dict(network.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv_name, norm_name = str(before.target), str(node.target)
        if calls[conv_name] > 1 or calls[norm_name] > 1:  # shared weights would be fused twice
            continue
        conv, norm = modules[conv_name], modules[norm_name]
        if type(conv) in PLAIN and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            _replace(network, modules, conv_name, fuse_conv_bn_eval(conv, norm))
            _replace(network, modules, norm_name, _split_remainder(norm))


def _split_remainder(norm: nn.BatchNorm2d) -> nn.Module:
    """Return the layers of timm's BatchNormAct2d after the normalization: dropout and activation; for a plain norm an empty Sequential."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))


def _replace(root: nn.Module, modules: dict[str, nn.Module], name: str, replacement: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(modules[parent] if parent else root, attribute, replacement)
    modules[name] = replacement
