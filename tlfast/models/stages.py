"""Stages of a backbone, and its division at one of them: the lower part stays frozen, the upper part trains."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import group_parameters
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import fx, nn

from ..core import UsageError

TOLERANCE = 1e-4  # largest difference by rounding between the two parts and the whole, relative to the largest feature


@dataclass(frozen=True)
class SplitBody:
    """Two networks that make up a body and share its layers.

    Attributes:
        lower: images `[b, 3, h, w]` -> activations `[b, ...]`.
        upper: activations `[b, ...]` -> features `[b, d]`.
    """

    lower: nn.Module
    upper: nn.Module


def group_layers(body: nn.Module, coarse: bool) -> list[list[str]]:
    """Return the parameter names of each layer by timm's `group_matcher`, lowest layer first.

    With `coarse` the groups are the stem and the stages; parameters after the last stage, such as those of a norm, belong to it. For networks
    without `group_matcher` the stages come from `feature_info`. Networks with neither have no groups.
    """
    if not hasattr(body, "group_matcher"):
        return _group_by_features(body) if coarse else []
    timm_body: Any = body
    matcher = timm_body.group_matcher(coarse=coarse)
    if coarse and isinstance(matcher, dict):
        matcher = {**matcher, "all other parameters": [(".*", MATCH_PREV_GROUP)]}
    groups = group_parameters(body, matcher)
    return [groups[depth] for depth in sorted(groups)]


def _group_by_features(body: nn.Module) -> list[list[str]]:
    """Return the parameter names of the stem and of each module in `feature_info`; parameters between two modules belong to the lower one."""
    modules = [f"{info['module']}." for info in getattr(body, "feature_info", None) or []]
    groups: list[list[str]] = [[]]
    current = ""
    for name, _ in body.named_parameters():
        module = next(filter(name.startswith, modules), current)
        if module != current:
            groups.append([])
            current = module
        groups[-1].append(name)
    return list(filter(None, groups))


def list_stages(body: nn.Module, arch: str) -> list[str]:
    """Return the module names of the stages above the stem, lowest first. Raises UsageError for a network without declared stages.

    >>> from tlfast.models import Weights, build_body, list_stages
    >>> list_stages(build_body(Weights("none", "mobilenetv2_100"), 96), "mobilenetv2_100")
    ['blocks.0', 'blocks.1', 'blocks.2', 'blocks.3', 'blocks.4', 'blocks.5', 'blocks.6']
    """
    groups = group_layers(body, coarse=True)
    if len(groups) < 2:
        raise UsageError(f"--depth: {arch} does not declare its stages", "Use --partial, --full, or another --arch, such as mobilenetv2_100")
    return [_find_module(names, {name for group in groups if group is not names for name in group}) for names in groups[1:]]


def split_at(body: nn.Module, arch: str, depth: int, size: int) -> SplitBody:
    """Split a body so that its topmost `depth` stages are the upper part; `size` is the side of the images in pixels.

    The body is traced with an example, and the two parts must reproduce its features. Raises UsageError for a network that cannot be split there.
    """
    groups = group_layers(body, coarse=True)
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    failure = UsageError(f"--depth {depth}: {arch} cannot be split at this stage", "Use another --depth, --partial or --full")
    training = body.training
    body.eval()
    try:
        with torch.no_grad():
            x = torch.rand(2, 3, size, size, device=next(body.parameters()).device)
            graph = _Tracer(group_of, x).trace(body)
            parts = _find_cut(body, graph, _rank_nodes(graph, group_of), len(groups) - depth)
            features, activations = body(x), parts.lower(x)
            if not isinstance(activations, torch.Tensor):  # several branches cross the boundary
                raise failure
            repeated = parts.upper(activations)
    except UsageError:
        raise
    except Exception as error:  # fx raises errors of many types for networks with data-dependent control flow
        raise failure from error
    finally:
        body.train(training)
    if not torch.allclose(features, repeated, rtol=0, atol=TOLERANCE * float(features.abs().max())):
        raise failure
    return parts


class _Tracer(fx.Tracer):
    """Tracer whose leaves are the modules within one stage, which need not be traceable.

    It also computes the value of each node for an example image. Control flow that depends on the size of the image, which is fixed during a run,
    follows these values.
    """

    def __init__(self, group_of: Mapping[str, int], example: torch.Tensor) -> None:
        super().__init__()
        self.group_of, self.example = group_of, example
        self.values: dict[fx.Node, Any] = {}
        self.computing = False

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return len({self.group_of[f"{name}.{parameter}"] for parameter, _ in module.named_parameters()}) <= 1

    def create_proxy(self, kind: str, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(kind, *args, **kwargs)
        if kind != "output":
            self.computing = True
            self.values[proxy.node] = self._compute_value(proxy.node)
            self.computing = False
        return proxy

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return forward(*args, **kwargs) if self.computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.values[obj.node])

    def _compute_value(self, node: fx.Node) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda before: self.values[before])
        if node.op == "placeholder":
            return args[0] if args else self.example
        if callable(node.target):
            return node.target(*args, **kwargs)
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(node.target)(*args, **kwargs)
        return getattr(args[0], node.target)(*args[1:], **kwargs)


def _rank_nodes(graph: fx.Graph, group_of: Mapping[str, int]) -> dict[fx.Node, int]:
    """Return the highest stage that each node depends on: 0 is the stem, -1 only the image."""
    ranks: dict[fx.Node, int] = {}
    for node in graph.nodes:
        target = str(node.target)
        stages = [number for name, number in group_of.items() if name == target or name.startswith(f"{target}.")]
        rank = max(stages) if node.op in ("call_module", "get_attr") and stages else -1
        ranks[node] = max([rank, *(ranks[before] for before in node.all_input_nodes)])
    return ranks


def _find_cut(body: nn.Module, graph: fx.Graph, ranks: Mapping[fx.Node, int], boundary: int) -> SplitBody:
    """Split a graph below the first node of rank `boundary`. Raises ValueError unless exactly one value crosses the cut."""
    above = {node for node in graph.nodes if ranks[node] >= boundary or node.op == "output"}
    inputs = {before for node in above for before in node.all_input_nodes} - above
    constants = {node for node in inputs if node.op == "get_attr" or (node.op == "placeholder" and node.args)}  # available to both parts
    crossing = inputs - constants
    if len(crossing) != 1:
        raise ValueError(f"{len(crossing)} values cross the cut")
    (cut,) = crossing
    lower = fx.Graph()
    copies = _copy_nodes(lower, (node for node in graph.nodes if node not in above), {})
    lower.output(copies[cut])
    upper = fx.Graph()
    _copy_nodes(upper, (node for node in graph.nodes if node in constants or node in above), {cut: upper.placeholder("activations")})
    return SplitBody(fx.GraphModule(body, lower), fx.GraphModule(body, upper))


def _copy_nodes(graph: fx.Graph, nodes: Iterable[fx.Node], copies: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """Copy nodes into a graph, in order; return `copies` with the new ones added: original -> copy."""
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda original: copies[original])
    return copies


def _find_module(names: list[str], others: set[str]) -> str:
    """Return the shortest module name that contains the first of the parameters `names` and none of `others`."""
    words = names[0].split(".")
    prefixes = (".".join(words[:count]) for count in range(1, len(words) + 1))
    return next(prefix for prefix in prefixes if not any(other == prefix or other.startswith(f"{prefix}.") for other in others))
