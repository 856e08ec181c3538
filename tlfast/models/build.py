"""From settings to a fastai Learner: a timm backbone with its weights, a head, three groups of parameters, a loss."""

from __future__ import annotations

import timm
import torch
from fastai.vision.learner import create_head
from torch import nn

from ..core.errors import UsageError, WeightsError, first_line, suggest_name
from ..data.download import TIMEOUT, describe_failure
from ..data.hub import check_reachable
from . import pretrained
from .weights import load_weights, read_weights


def check_arch(arch: str) -> None:
    """Raise UsageError, with the nearest name, where timm knows no such model."""
    if not timm.is_model(arch.partition(".")[0]):
        listing = "python -c 'import timm; print(timm.list_models())' lists them"
        raise UsageError(f"--arch '{arch}' is not a timm model", suggest_name(arch, timm.list_models()) or listing)


def build_body(weights: pretrained.Weights, size: int) -> nn.Module:
    """Return the timm network without its classifier, weights loaded: `[b, 3, size, size]` -> `[b, d]`.

    Raises WeightsError where the weights cannot be had or do not fit.
    """
    body = _download_body(weights.arch) if weights.kind == "hub" else _create_body(weights.arch)
    if weights.path:
        load_weights(body, read_weights(weights), weights)
    if body.pretrained_cfg.get("fixed_input_size") and hasattr(body, "set_input_size"):
        body.set_input_size(img_size=(size, size))
    # Channels last makes convolutions on a CPU about 1.5 times as fast, and is what tensor cores want on a GPU.
    return body.to(memory_format=torch.channels_last)


def build_model(arch: str, classes: int, size: int) -> nn.Module:
    """Return a whole classifier with random weights, for weights of a run to be loaded into: `[b, 3, size, size]` -> logits `[b, c]`."""
    body = build_body(pretrained.Weights("none", arch), size)
    return nn.Sequential(body, build_head(body, classes, size))


def build_head(body: nn.Module, classes: int, size: int) -> nn.Module:
    """Return fastai's head for the features of a body: BatchNorm, dropout and two linear layers, `[b, d]` -> `[b, c]`."""
    return create_head(count_features(body, size), classes, pool=False)


@torch.inference_mode()
def count_features(body: nn.Module, size: int) -> int:
    """Return d, the number of features of a body; asked of the network itself, for timm's own numbers differ where a head has hidden layers."""
    training = body.training
    count = body.eval()(torch.zeros(1, 3, size, size)).shape[1]
    body.train(training)
    return count


def to_network_input(x: torch.Tensor) -> torch.Tensor:
    """Return a batch as a network is fastest with it: `[b, c, h, w]` with channels last (tokens `[b, n, d]` as they are), and a plain tensor.

    With fastai's TensorImage every layer's output is one too: a bare training loop peaked 170 MB higher (mobilenetv2_100, 96 px, batch 64).
    """
    plain = x.as_subclass(torch.Tensor)
    return plain.contiguous(memory_format=torch.channels_last) if plain.ndim == 4 else plain


# Weights


def _create_body(arch: str) -> nn.Module:
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0)
    except Exception as error:  # timm raises nearly anything for a name that it lists but cannot build
        raise UsageError(f"--arch '{arch}' cannot be built by timm: {first_line(error)}", "Choose another --arch") from error


def _download_body(arch: str) -> nn.Module:
    cfg = timm.get_pretrained_cfg(arch)
    if not (cfg and cfg.has_weights):
        raise WeightsError(f"there are no pretrained weights for '{arch}'", pretrained.suggest_sources(arch))
    try:
        _check_reachable(cfg.hf_hub_id)
        return timm.create_model(arch, pretrained=True, num_classes=0)
    except Exception as error:  # huggingface_hub, requests, httpx and urllib each have their own
        raise WeightsError(f"no weights for '{arch}': the hub cannot be reached ({describe_failure(error)})", pretrained.suggest_sources(arch)) from error


def _check_reachable(repository: str | None) -> None:
    """Ask the hub once, with a short limit, where the weights are not in its cache: its own client would try for most of a minute."""
    from huggingface_hub import try_to_load_from_cache

    if repository:
        name, _, revision = repository.partition("@")
        files = ("model.safetensors", "pytorch_model.bin")
        if not any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files):
            check_reachable(TIMEOUT)
