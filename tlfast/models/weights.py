"""Read, check and load pretrained weights; no code in a weights file is executed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from ..core.errors import WeightsError, first_line
from ..data.types import Stats
from . import pretrained

LISTED = 6  # names of mismatched parameters that an error lists
IMAGENET_STATS: Stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalization_stats(weights: pretrained.Weights) -> Stats:
    """Return the mean and standard deviation that the weights were trained with: the file's own where it says, else timm's for the name."""
    said = read_header(weights)
    if "mean" in said and "std" in said:
        return _parse_numbers(said["mean"]), _parse_numbers(said["std"])
    cfg = timm.get_pretrained_cfg(weights.arch)
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg else IMAGENET_STATS


def read_licence(weights: pretrained.Weights) -> str:
    """Return the licence of pretrained weights as their own source states it, else "unknown"."""
    if weights.kind == "none":
        return "none: not pretrained"
    if weights.kind == "embedded":
        return metadata.metadata(pretrained.EMBEDDED[weights.arch][0])["License"] or "unknown"
    if weights.kind == "hub":
        return timm.get_pretrained_cfg(weights.arch).license or "unknown"
    said = read_header(weights)
    return said.get("license") or said.get("source") or "unknown"


def read_header(weights: pretrained.Weights) -> dict[str, str]:
    """Return what the head of a safetensors file says; nothing for other files. Raises WeightsError."""
    if not weights.path.endswith(".safetensors"):
        return {}
    with _convert_read_errors(weights), safe_open(weights.path, "pt") as file:
        return file.metadata() or {}


def hash_weights(module: nn.Module) -> str:
    """Return a SHA-256 of all weights and buffers, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# Weights


def read_weights(weights: pretrained.Weights) -> dict[str, torch.Tensor]:
    """Read a weights file without executing anything in it; embedded weights are renamed to timm's names. Raises WeightsError."""
    with _convert_read_errors(weights):
        state = load_file(weights.path) if weights.path.endswith(".safetensors") else torch.load(weights.path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return rename_efficientnet_lite(state) if "_conv_stem.weight" in state else state


def load_weights(body: nn.Module, state: Mapping[str, torch.Tensor], weights: pretrained.Weights) -> None:
    """Load weights into a body; a classifier in the file is left out. Raises WeightsError that lists whatever does not fit."""
    classifier = body.pretrained_cfg.get("classifier") or ()
    ignored = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    own = body.state_dict()
    given = {name: tensor for name, tensor in state.items() if name in own or not name.startswith(ignored)}
    # Old checkpoints lack BatchNorm's counter, which nothing here reads.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    problems = {
        "missing": missing,
        "unexpected": [name for name in given if name not in own],
        "of another shape": [f"{n} {list(t.shape)} for {list(own[n].shape)}" for n, t in given.items() if n in own and t.shape != own[n].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(names)} {kind}: {_shorten(names)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{weights.path} does not fit {weights.arch}: {found}", "Give the weights of this very --arch, or --weights none")
    body.load_state_dict(given, strict=False)


def rename_efficientnet_lite(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the EfficientNet-Lite weights of the package `efficientnet_lite_pytorch` to timm's names.

    There blocks are numbered throughout and a block's expansion is missing where it does nothing; timm numbers them stage by stage and
    names the three convolutions of a block by their position.
    """
    stages = _number_lite_stages(state)
    fixed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, tensor in state.items():
        match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if match:
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


def _number_lite_stages(state: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Return (stage, block in the stage) of each block: Lite0 repeats its seven stages 1, 2, 2, 3, 3, 4 and 1 times."""
    repeats = (1, 2, 2, 3, 3, 4, 1)
    return [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]


@contextmanager
def _convert_read_errors(weights: pretrained.Weights) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into a WeightsError."""
    try:
        yield
    except Exception as error:  # safetensors, pickle and zipfile each have their own
        raise WeightsError(
            f"{weights.path} is not a weights file that can be read safely ({first_line(error)})", "Give a .safetensors file or a plain state dict"
        ) from error


def _parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
