"""Reading, checking and loading of pretrained weights. No code in a weights file is executed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ..core import WeightsError
from ..core.errors import first_line, list_some
from ..data.types import Stats
from . import pretrained

LISTED = 6  # most names of mismatched parameters in an error
IMAGENET_STATS: Stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalization_stats(weights: pretrained.Weights) -> Stats:
    """Return the mean and standard deviation that the weights were trained with.

    They come from the metadata of a safetensors file, else from timm's configuration of the model, else from ImageNet. Raises WeightsError.
    """
    header = read_header(weights)
    if "mean" in header and "std" in header:
        with _convert_read_errors(weights):
            return _parse_channels(header["mean"]), _parse_channels(header["std"])
    cfg = timm.get_pretrained_cfg(weights.arch)
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg else IMAGENET_STATS


def read_licence(weights: pretrained.Weights) -> str:
    """Return the licence that the source of the weights states, or "unknown". Raises WeightsError."""
    if weights.kind == "none":
        return "none: not pretrained"
    if weights.kind == "embedded":
        return metadata.metadata(pretrained.EMBEDDED[weights.arch][0])["License"] or "unknown"
    if weights.kind == "hub":
        cfg = timm.get_pretrained_cfg(weights.arch)
        return (cfg and cfg.license) or "unknown"
    header = read_header(weights)
    return header.get("license") or header.get("source") or "unknown"


def read_header(weights: pretrained.Weights) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; {} for files of other types. Raises WeightsError."""
    if not weights.path.endswith(".safetensors"):
        return {}
    with _convert_read_errors(weights), safe_open(weights.path, "pt") as file:
        return file.metadata() or {}


def hash_weights(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers in hexadecimal; equal networks have equal hashes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_weights(weights: pretrained.Weights) -> dict[str, torch.Tensor]:
    """Read a state dict from a safetensors file or a checkpoint of plain tensors, with parameter names of timm. Raises WeightsError."""
    with _convert_read_errors(weights):
        safe = weights.path.endswith(".safetensors")
        state: Any = load_file(weights.path) if safe else torch.load(weights.path, map_location="cpu", weights_only=True)
        if not isinstance(state, Mapping):
            raise TypeError(f"it holds a {type(state).__name__}, not a dict of tensors")
        for key in ("state_dict", "model", "state_dict_ema"):
            if isinstance(state.get(key), Mapping):
                state = state[key]
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return rename_efficientnet_lite(state) if "_conv_stem.weight" in state else state


def load_weights(body: nn.Module, state: Mapping[str, torch.Tensor], weights: pretrained.Weights) -> None:
    """Load weights into a body, except those of the classifier. Raises WeightsError with the names of the parameters that do not fit."""
    timm_body: Any = body
    classifier = timm_body.pretrained_cfg.get("classifier") or ()
    ignored = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    expected = body.state_dict()
    given = {name: tensor for name, tensor in state.items() if name in expected or not name.startswith(ignored)}
    # Old checkpoints lack the batch counters of BatchNorm, which are not used.
    missing = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    problems = {
        "missing": missing,
        "unexpected": [name for name in given if name not in expected],
        "with another shape": [
            f"{name} {list(tensor.shape)} for {list(expected[name].shape)}"
            for name, tensor in given.items()
            if name in expected and tensor.shape != expected[name].shape
        ],
    }
    if any(problems.values()):
        listing = "; ".join(f"{len(names)} {kind}: {list_some(names, LISTED)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{weights.path} does not fit {weights.arch}: {listing}", "Pass weights of the same --arch, or use --weights none")
    body.load_state_dict(given, strict=False)


def rename_efficientnet_lite(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the EfficientNet-Lite weights of the package `efficientnet_lite_pytorch` to timm's names.

    That package numbers the blocks from the first to the last and omits expansions by a factor of 1. timm numbers them within each stage and names
    the three convolutions of a block by position.
    """
    stages = _number_lite_stages()
    fixed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, tensor in state.items():
        match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if match and int(match[1]) < len(stages):
            stage, block = stages[int(match[1])]
            renamed[f"blocks.{stage}.{block}.{_rename_lite_layer(match[2], stage)}.{match[3]}"] = tensor
        else:
            layer, _, rest = name.partition(".")
            renamed[f"{fixed.get(layer, layer)}.{rest}"] = tensor
    return renamed


def _rename_lite_layer(name: str, stage: int) -> str:
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    unexpanded = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return (expanded if stage else unexpanded).get(name, name)


def _number_lite_stages() -> list[tuple[int, int]]:
    """Return (stage, block in the stage) of each block. The seven stages of Lite0 have 1, 2, 2, 3, 3, 4 and 1 blocks."""
    repeats = (1, 2, 2, 3, 3, 4, 1)
    return [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]


@contextmanager
def _convert_read_errors(weights: pretrained.Weights) -> Iterator[None]:
    """Convert all errors of the readers, also those for damaged files, to WeightsError."""
    try:
        yield
    except Exception as error:  # safetensors, pickle and zipfile each raise errors of their own
        message = f"{weights.path} is not a weights file that can be read safely ({first_line(error)})"
        raise WeightsError(message, "Pass a .safetensors file or a plain state dict with --weights FILE") from error


def _parse_channels(text: str) -> tuple[float, ...]:
    """Return the values of the three channels, such as "0.5,0.5,0.5". Raises ValueError."""
    values = tuple(float(number) for number in text.split(","))
    if len(values) != 3:
        raise ValueError(f"mean and std have three numbers, here {text}")
    return values
