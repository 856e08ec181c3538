"""Classifiers built from timm networks: body with pretrained weights, and input format."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from ..core import Settings, UsageError, WeightsError
from ..core.errors import first_line, suggest_name
from ..core.settings import find_unused
from ..data.download import TIMEOUT, describe_failure
from ..data.hub_client import check_reachable
from . import pretrained
from .device import image_format, move_network
from .head import build_head
from .weights import load_weights, read_weights


def check_arch(arch: str) -> None:
    """Raise UsageError, with the nearest name as the hint, if timm has no model called `arch`."""
    if not timm.is_model(arch.partition(".")[0]):
        raise UsageError(f"--arch '{arch}' is not a timm model", suggest_name(arch, timm.list_models()) or "Search for one with: tlfast archs PATTERN")


@torch.inference_mode()
def check_sizes(body: nn.Module, settings: Settings) -> None:
    """Raise UsageError if `--sizes` has an effect and the network does not take images of one of the sizes."""
    if not settings.sizes or "sizes" in find_unused(settings):
        return
    was_training, device = body.training, next(body.parameters()).device
    body.eval()
    for size in map(int, settings.sizes.split(",")):
        try:
            body(to_network_input(torch.zeros(1, 3, size, size, device=device)))
        except (RuntimeError, AssertionError, ValueError) as error:
            found = f"--sizes {settings.sizes}: {settings.arch} takes no images of {size} px ({first_line(error)})"
            raise UsageError(found, "Leave out --sizes, or use another --arch") from None
    body.train(was_training)


def build_body(weights: pretrained.Weights, size: int) -> nn.Module:
    """Return the timm network without its classifier, with its weights loaded: `[b, 3, size, size]` -> `[b, d]`.

    Raises:
        UsageError: timm cannot build the network.
        WeightsError: the weights cannot be downloaded or read, or do not fit the network.
    """
    body: Any = _download_body(weights.arch) if weights.kind == "hub" else _create_body(weights.arch)
    if weights.path:
        load_weights(body, read_weights(weights), weights)
    if body.pretrained_cfg.get("fixed_input_size") and hasattr(body, "set_input_size"):
        body.set_input_size(img_size=(size, size))
    return move_network(body, torch.device("cpu"))


def build_model(arch: str, classes: int, size: int, head: str = "fastai") -> nn.Module:
    """Return a classifier with random weights: `[b, 3, size, size]` -> logits `[b, c]`.

    The weights of a run are loaded into it. `model[0]` is the body and `model[1]` the head, of a kind of `HIDDEN`.

    >>> build_model("test_resnet", 10, 32)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    body = build_body(pretrained.Weights("none", arch), size)
    return nn.Sequential(body, build_head(body, classes, size, head))


def to_network_input(x: torch.Tensor) -> torch.Tensor:
    """Return a batch as a plain tensor, images `[b, c, h, w]` in the memory format of their device; tokens `[b, n, d]` keep their format."""
    # With fastai's TensorImage the output of every layer is a TensorImage; see docs/benchmarks.md, "Memory format".
    plain = x.as_subclass(torch.Tensor)
    return plain.contiguous(memory_format=image_format(plain.device)) if plain.ndim == 4 else plain


# Networks without a weights file


def _create_body(arch: str) -> nn.Module:
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0)
    except Exception as error:  # timm raises errors of many types for listed models that it cannot build
        raise UsageError(f"--arch '{arch}' cannot be built by timm: {first_line(error)}", "Choose another --arch") from error


def _download_body(arch: str) -> nn.Module:
    cfg = timm.get_pretrained_cfg(arch)
    if not (cfg and cfg.has_weights):
        raise WeightsError(f"there are no pretrained weights for '{arch}'", pretrained.suggest_sources(arch))
    try:
        _check_reachable(cfg.hf_hub_id)
        return timm.create_model(arch, pretrained=True, num_classes=0)
    except Exception as error:  # huggingface_hub, requests, httpx and urllib each raise errors of their own
        raise WeightsError(f"no weights for '{arch}': the hub cannot be reached ({describe_failure(error)})", pretrained.suggest_sources(arch)) from error


def _check_reachable(repository: str | None) -> None:
    """Check that the hub can be reached, unless its cache holds the weights; the hub's client would retry for most of a minute."""
    if repository and not pretrained.is_in_hub_cache(repository):
        check_reachable(TIMEOUT)
