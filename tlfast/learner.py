"""From settings to a fastai Learner: a timm backbone with its weights, a head, three groups of parameters, a loss."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

import timm
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import BalancedAccuracy, F1Score, accuracy
from fastai.vision.learner import create_head, model_meta, vision_learner
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from . import backbones, stages
from .core.errors import UsageError, WeightsError, first_line, suggest_name
from .core.settings import Settings
from .core.system import count_cores, tune_allocator
from .data.download import TIMEOUT, describe_failure
from .data.hub import check_reachable
from .data.types import Stats
from .optimizer import adam

LISTED = 6  # names of mismatched parameters that an error lists
IMAGENET: Stats = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_arch(arch: str) -> None:
    """Raise UsageError, with the nearest name, where timm knows no such model."""
    if not timm.is_model(arch.partition(".")[0]):
        listing = "python -c 'import timm; print(timm.list_models())' lists them"
        raise UsageError(f"--arch '{arch}' is not a timm model", suggest_name(arch, timm.list_models()) or listing)


def pick_device(wanted: str) -> torch.device:
    """Return the device to run on. Raises UsageError where one is asked for that is not there."""
    tune_allocator()
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[wanted]:
        raise UsageError(f"--device {wanted}: torch finds none here", "Use --device auto; tlfast doctor shows what there is")
    if wanted == "cpu":
        torch.set_num_threads(count_cores())
    return torch.device(wanted, 0) if wanted == "cuda" else torch.device(wanted)


def build_body(weights: backbones.Weights, size: int) -> nn.Module:
    """Return the timm network without its classifier, weights loaded: `[b, 3, size, size]` -> `[b, d]`.

    Raises WeightsError where the weights cannot be had or do not fit.
    """
    body = _from_hub(weights.arch) if weights.kind == "hub" else _create(weights.arch)
    if weights.path:
        load_weights(body, read_weights(weights), weights)
    if body.pretrained_cfg.get("fixed_input_size") and hasattr(body, "set_input_size"):
        body.set_input_size(img_size=(size, size))
    # Channels last makes convolutions on a CPU about 1.5 times as fast, and is what tensor cores want on a GPU.
    return body.to(memory_format=torch.channels_last)


def build_model(arch: str, classes: int, size: int) -> nn.Module:
    """Return a whole classifier with random weights, for weights of a run to be loaded into: `[b, 3, size, size]` -> logits `[b, c]`."""
    body = build_body(backbones.Weights("none", arch), size)
    return nn.Sequential(body, build_head(body, classes, size))


def build_head(body: nn.Module, classes: int, size: int) -> nn.Module:
    """Return fastai's head for the features of a body: BatchNorm, dropout and two linear layers, `[b, d]` -> `[b, c]`."""
    return create_head(feature_count(body, size), classes, pool=False)


@torch.inference_mode()
def feature_count(body: nn.Module, size: int) -> int:
    """Return d, the number of features of a body; asked of the network itself, for timm's own numbers differ where a head has hidden layers."""
    training = body.training
    count = body.eval()(torch.zeros(1, 3, size, size)).shape[1]
    body.train(training)
    return count


def build_learner(dls: DataLoaders, settings: Settings, weights: backbones.Weights, class_weights: torch.Tensor | None = None) -> Learner:
    """Return a fastai Learner on a timm backbone, its parameters in three groups: lower body, upper body, head.

    `vision_learner` is given the built body rather than a timm name: for a name it ignores `weights` in silence and cuts the layers between
    pooling and classifier off some networks (mobilenetv3, efficientvit, convnext...). Its argument `cut` goes nowhere; `model_meta` is heard.
    """
    body = build_body(weights, settings.size)

    def arch(pretrained: bool) -> nn.Module:
        return body

    model_meta[arch] = {"cut": lambda model: model, "split": split_parameters}
    try:
        learn = vision_learner(
            dls,
            arch,
            custom_head=build_head(body, dls.c, settings.size),
            normalize=False,
            pretrained=False,
            n_out=dls.c,
            loss_func=CrossEntropyLossFlat(weight=class_weights, label_smoothing=settings.label_smoothing),
            opt_func=adam,
            metrics=metrics(),
        )
    finally:
        del model_meta[arch]
    learn.model.to(dls.device)
    return learn


def network_input(x: torch.Tensor) -> torch.Tensor:
    """Return a batch as a network is fastest with it: `[b, c, h, w]` with channels last (tokens `[b, n, d]` as they are), and a plain tensor.

    With fastai's TensorImage every layer's output is one too: a bare training loop peaked 170 MB higher (mobilenetv2_100, 96 px, batch 64).
    """
    plain = x.as_subclass(torch.Tensor)
    return plain.contiguous(memory_format=torch.channels_last) if plain.ndim == 4 else plain


def metrics() -> list:
    """The metrics of every epoch, in the order of `results.EpochRow`."""
    return [accuracy, F1Score(average="macro"), BalancedAccuracy()]


def split_parameters(model: nn.Sequential, whole: nn.Module | None = None) -> list[list[nn.Parameter]]:
    """Divide a model into lower body, upper body and head, by the depth that timm's own `group_matcher` gives each parameter.

    Where the body is but a part of a network, `whole` is that network.
    """
    body, head = model
    named = dict(body.named_parameters())
    found = stages.layers(whole or body, coarse=False) or [[name] for name in named]
    layers = [own for layer in found if (own := [name for name in layer if name in named])]
    half = (len(layers) + 1) // 2
    lower, upper = ([named[name] for layer in part for name in layer] for part in (layers[:half], layers[half:]))
    return [lower, upper, list(head.parameters())]


def stats(weights: backbones.Weights) -> Stats:
    """Return the mean and standard deviation that the weights were trained with: the file's own where it says, else timm's for the name."""
    said = header(weights)
    if "mean" in said and "std" in said:
        return _numbers(said["mean"]), _numbers(said["std"])
    cfg = timm.get_pretrained_cfg(weights.arch)
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg else IMAGENET


def licence(weights: backbones.Weights) -> str:
    """Return the licence of pretrained weights as their own source states it, else "unknown"."""
    if weights.kind == "none":
        return "none: not pretrained"
    if weights.kind == "embedded":
        return metadata.metadata(backbones.EMBEDDED[weights.arch][0])["License"] or "unknown"
    if weights.kind == "hub":
        return timm.get_pretrained_cfg(weights.arch).license or "unknown"
    said = header(weights)
    return said.get("license") or said.get("source") or "unknown"


def header(weights: backbones.Weights) -> dict[str, str]:
    """Return what the head of a safetensors file says; nothing for other files. Raises WeightsError."""
    if not weights.path.endswith(".safetensors"):
        return {}
    with _readable(weights), safe_open(weights.path, "pt") as file:
        return file.metadata() or {}


def fingerprint(module: nn.Module) -> str:
    """Return a SHA-256 of all weights and buffers, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# Weights


def read_weights(weights: backbones.Weights) -> dict[str, torch.Tensor]:
    """Read a weights file without executing anything in it; embedded weights are renamed to timm's names. Raises WeightsError."""
    with _readable(weights):
        state = load_file(weights.path) if weights.path.endswith(".safetensors") else torch.load(weights.path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return from_efficientnet_pytorch(state) if "_conv_stem.weight" in state else state


def load_weights(body: nn.Module, state: Mapping[str, torch.Tensor], weights: backbones.Weights) -> None:
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
        found = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise WeightsError(f"{weights.path} does not fit {weights.arch}: {found}", "Give the weights of this very --arch, or --weights none")
    body.load_state_dict(given, strict=False)


def from_efficientnet_pytorch(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the EfficientNet-Lite weights of the package `efficientnet_lite_pytorch` to timm's names.

    There blocks are numbered throughout and a block's expansion is missing where it does nothing; timm numbers them stage by stage and
    names the three convolutions of a block by their position.
    """
    stages = _lite_stages(state)
    fixed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, tensor in state.items():
        match = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name)
        if match:
            stage, block = stages[int(match[1])]
            renamed[f"blocks.{stage}.{block}.{_lite_layer(match[2], stage)}.{match[3]}"] = tensor
        else:
            layer, _, rest = name.partition(".")
            renamed[f"{fixed.get(layer, layer)}.{rest}"] = tensor
    return renamed


def _lite_layer(name: str, stage: int) -> str:
    expanded = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    unexpanded = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    return (expanded if stage else unexpanded).get(name, name)


def _lite_stages(state: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Return (stage, block in the stage) of each block: Lite0 repeats its seven stages 1, 2, 2, 3, 3, 4 and 1 times."""
    repeats = (1, 2, 2, 3, 3, 4, 1)
    return [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]


def _create(arch: str) -> nn.Module:
    try:
        return timm.create_model(arch, pretrained=False, num_classes=0)
    except Exception as error:  # timm raises nearly anything for a name that it lists but cannot build
        raise UsageError(f"--arch '{arch}' cannot be built by timm: {first_line(error)}", "Choose another --arch") from error


def _from_hub(arch: str) -> nn.Module:
    cfg = timm.get_pretrained_cfg(arch)
    if not (cfg and cfg.has_weights):
        raise WeightsError(f"there are no pretrained weights for '{arch}'", backbones.ways_out(arch))
    try:
        _check_reachable(cfg.hf_hub_id)
        return timm.create_model(arch, pretrained=True, num_classes=0)
    except Exception as error:  # huggingface_hub, requests, httpx and urllib each have their own
        raise WeightsError(f"no weights for '{arch}': the hub cannot be reached ({describe_failure(error)})", backbones.ways_out(arch)) from error


def _check_reachable(repository: str | None) -> None:
    """Ask the hub once, with a short limit, where the weights are not in its cache: its own client would try for most of a minute."""
    from huggingface_hub import try_to_load_from_cache

    if repository:
        name, _, revision = repository.partition("@")
        files = ("model.safetensors", "pytorch_model.bin")
        if not any(isinstance(try_to_load_from_cache(name, file, revision=revision or None), str) for file in files):
            check_reachable(TIMEOUT)


@contextmanager
def _readable(weights: backbones.Weights) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into a WeightsError."""
    try:
        yield
    except Exception as error:  # safetensors, pickle and zipfile each have their own
        raise WeightsError(
            f"{weights.path} is not a weights file that can be read safely ({first_line(error)})", "Give a .safetensors file or a plain state dict"
        ) from error


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
