"""A backbone's stages, and a backbone divided at one of them: what lies below stays frozen, what lies above trains."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import group_parameters
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import fx, nn

from ..core.errors import UsageError

TOLERANCE = 1e-4  # by which the two parts together may differ from the whole, relative to its largest value: rounding


@dataclass(frozen=True)
class SplitBody:
    """Two networks that make up a body and share its layers: `lower` `[b, 3, h, w]` -> activations `[b, ...]`, `upper` those -> `[b, d]`."""

    lower: nn.Module
    upper: nn.Module


def group_layers(body: nn.Module, coarse: bool) -> list[list[str]]:
    """Return the parameter names of each layer (`coarse`: of the stem and of each stage), lowest first, as timm's `group_matcher` says.

    What follows the last stage, such as a norm, belongs to it. Without a `group_matcher` `feature_info` may name the stages; nothing for a network
    that says neither.
    """
    if not hasattr(body, "group_matcher"):
        return _group_by_features(body) if coarse else []
    matcher = body.group_matcher(coarse=coarse)
    if coarse and isinstance(matcher, dict):
        matcher = {**matcher, "what no other pattern matches": [(".*", MATCH_PREV_GROUP)]}
    groups = group_parameters(body, matcher)
    return [groups[depth] for depth in sorted(groups)]


def _group_by_features(body: nn.Module) -> list[list[str]]:
    """Return the parameter names of the stem and of each module that `feature_info` names; what lies between two belongs to the one before."""
    modules = [f"{info['module']}." for info in getattr(body, "feature_info", None) or []]
    found: list[list[str]] = [[]]
    last = ""
    for name, _ in body.named_parameters():
        module = next(filter(name.startswith, modules), last)
        if module != last:
            found.append([])
            last = module
        found[-1].append(name)
    return list(filter(None, found))


def list_stages(body: nn.Module, arch: str) -> list[str]:
    """Return the names of the stages above the stem, lowest first. Raises UsageError for a network that does not say them."""
    found = group_layers(body, coarse=True)
    if len(found) < 2:
        raise UsageError(f"--depth: {arch} does not say what its stages are", "Use --partial, --full, or another --arch, such as mobilenetv2_100")
    return [_find_module(names, {name for group in found if group is not names for name in group}) for names in found[1:]]


def split_at(body: nn.Module, arch: str, depth: int, size: int) -> SplitBody:
    """Divide a body so that its topmost `depth` stages are the upper part. Raises UsageError where it cannot be divided there."""
    found = group_layers(body, coarse=True)
    boundary = len(found) - depth
    group_of = {name: number for number, group in enumerate(found) for name in group}
    trouble = UsageError(f"--depth {depth}: {arch} cannot be divided there", "Use another --depth, --partial or --full")
    was = body.training
    body.eval()
    try:
        with torch.no_grad():
            x = torch.rand(2, 3, size, size, device=next(body.parameters()).device)
            graph = _Tracer(group_of, x).trace(body)
            parts = _find_cut(body, graph, _rank_nodes(graph, group_of), boundary)
            whole, kept = body(x), parts.lower(x)
            if not isinstance(kept, torch.Tensor):  # several branches cross the boundary
                raise trouble
            again = parts.upper(kept)
    except UsageError:
        raise
    except Exception as error:  # fx cannot follow a network whose path depends on what it sees, and says so in many ways
        raise trouble from error
    finally:
        body.train(was)
    if not torch.allclose(whole, again, rtol=0, atol=TOLERANCE * float(whole.abs().max())):
        raise trouble
    return parts


class _Tracer(fx.Tracer):
    """Looks only into modules that belong to several stages: within one a network may do as it likes.

    It computes along with an example, so that it can follow a path that depends on the image's size, which stays the same for a whole run.
    """

    def __init__(self, group_of: dict[str, int], example: torch.Tensor) -> None:
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
            self.values[proxy.node] = self._value(proxy.node)
            self.computing = False
        return proxy

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        return forward(*args, **kwargs) if self.computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.values[obj.node])

    def _value(self, node: fx.Node) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda before: self.values[before])
        if node.op == "placeholder":
            return args[0] if args else self.example
        if node.op == "get_attr":
            return operator.attrgetter(node.target)(self.root)
        if node.op == "call_module":
            return self.root.get_submodule(node.target)(*args, **kwargs)
        return node.target(*args, **kwargs) if node.op == "call_function" else getattr(args[0], node.target)(*args[1:], **kwargs)


def _rank_nodes(graph: fx.Graph, group_of: dict[str, int]) -> dict[fx.Node, int]:
    """Return for each node the highest stage that it depends on: 0 the stem, -1 nothing but the image."""
    ranks: dict[fx.Node, int] = {}
    for node in graph.nodes:
        target = str(node.target)
        within = [number for name, number in group_of.items() if name == target or name.startswith(f"{target}.")]
        own = max(within) if node.op in ("call_module", "get_attr") and within else -1
        ranks[node] = max([own, *(ranks[before] for before in node.all_input_nodes)])
    return ranks


def _find_cut(body: nn.Module, graph: fx.Graph, ranks: dict[fx.Node, int], boundary: int) -> SplitBody:
    """Divide a graph below the first node of a rank. Raises ValueError where more than one value would cross."""
    above = {node for node in graph.nodes if ranks[node] >= boundary or node.op == "output"}
    needed = {before for node in above for before in node.all_input_nodes} - above
    constants = {node for node in needed if node.op == "get_attr" or (node.op == "placeholder" and node.args)}  # both parts may have them
    crossing = needed - constants
    if len(crossing) != 1:
        raise ValueError(f"{len(crossing)} values cross")
    (cut,) = crossing
    lower, upper = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node not in above:
            copies[node] = lower.node_copy(node, lambda n: copies[n])
    lower.output(copies[cut])
    copies = {cut: upper.placeholder("activations")}
    for node in graph.nodes:
        if node in constants or node in above:
            copies[node] = upper.node_copy(node, lambda n: copies[n])
    return SplitBody(fx.GraphModule(body, lower), fx.GraphModule(body, upper))


def _find_module(names: list[str], others: set[str]) -> str:
    """Return the shortest module name under which the first of these parameters lies and none of the others."""
    words = names[0].split(".")
    prefixes = (".".join(words[:count]) for count in range(1, len(words) + 1))
    return next(prefix for prefix in prefixes if not any(other == prefix or other.startswith(f"{prefix}.") for other in others))
