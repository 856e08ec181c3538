"""Class activation maps of convolutional networks by LayerCAM (Jiang et al. 2021, doi 10.1109/TIP.2021.3089943)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core import ImageError, OnEvent, Progress
from ..data import Preprocessing, images
from ..models import run_by_halves, to_network_input

MIN_SIDE = 6  # smallest side of a layer's output; the last layers have a coarser resolution for small images
VIRIDIS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float32)  # five colours of the map
OPACITY = 0.55
SIDE = 96  # pixels of an overlay
BATCH = 12


def render_maps(network: nn.Sequential, paths: Sequence[str], preprocessing: Preprocessing, on_event: OnEvent) -> dict[str, Image.Image]:
    """Return an overlay of each image and its activation map for the predicted class: path -> square of 96 pixels.

    `network` is a body and a head. Images that cannot be read are left out; a network without convolutional features has no maps.
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    device = next(network.parameters()).device
    overlays: dict[str, Image.Image] = {}
    for start in range(0, len(paths), BATCH):
        prepared = _prepare_batch(paths[start : start + BATCH], preprocessing)
        if not prepared:
            continue
        x = torch.from_numpy(np.stack(list(prepared.values()))).permute(0, 3, 1, 2).float() / 255
        maps = torch.from_numpy(run_by_halves(partial(_compute_rows, network), ((x - mean) / std).to(device)))
        if not maps.numel():
            return {}
        overlays |= {path: overlay_map(Image.fromarray(pixels), heat, SIDE) for (path, pixels), heat in zip(prepared.items(), maps, strict=True)}
        on_event(Progress("activation maps", start + len(prepared), len(paths)))
    return overlays


def _prepare_batch(paths: Sequence[str], preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Return the resized and cropped pixels `[size, size, 3]` of each image that can be read, by path."""
    prepared = {}
    for path in paths:
        with suppress(ImageError):
            prepared[path] = images.prepare(images.open_image(path), preprocessing.size, preprocessing.full_size, preprocessing.resize)
    return prepared


def _compute_rows(network: nn.Sequential, x: torch.Tensor) -> np.ndarray:
    """Return the maps of `compute_maps` as rows; empty ones for a network without maps."""
    maps = compute_maps(network, x)
    return np.empty((len(x), 0, 0), np.float32) if maps is None else maps.numpy()


def compute_maps(network: nn.Sequential, x: torch.Tensor) -> torch.Tensor | None:
    """Return the activation maps of the predicted classes `[b, h', w']`, from 0 to 1; None for a network without convolutional features.

    `x` is a normalized batch `[b, 3, h, w]`. The maps come from the last layer whose output has a side of at least 6, else from the first layer.
    """
    body = network[0]
    if not _has_maps(body, x):
        return None
    with _record_outputs(body) as outputs, torch.enable_grad():
        # The weights may be frozen; layer outputs have gradients only if the input requires grad.
        logits = network(to_network_input(x).detach().requires_grad_())
        chosen = _choose_output(body, outputs)
        if chosen is None:
            return None
        (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), chosen)
    maps = (gradient.relu() * chosen.detach()).sum(dim=1).relu()
    return (maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()


@contextmanager
def _record_outputs(body: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the outputs `[b, c, h', w']` of the layers of a body, in order of execution."""
    outputs: list[torch.Tensor] = []

    def record(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1 and output.requires_grad:
            outputs.append(output)

    hooks = [module.register_forward_hook(record) for module in body.modules() if not list(module.children())]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _has_maps(body: nn.Module, x: torch.Tensor) -> bool:
    """Return whether the features of a timm network before pooling are maps `[b, c, h', w']`, and not tokens `[b, t, c]`."""
    forward: Callable[[torch.Tensor], object] | None = getattr(body, "forward_features", None)
    features = forward(to_network_input(x[:1])) if forward else None  # some networks return several tensors of tokens
    return not forward or (isinstance(features, torch.Tensor) and features.ndim == 4)


def _choose_output(body: nn.Module, outputs: list[torch.Tensor]) -> torch.Tensor | None:
    """Return the output to explain; None for networks whose features are tokens, such as transformers."""
    last = outputs[-1] if outputs else None
    features = getattr(body, "num_features", 0)
    if last is None or last.shape[1] < features // 4:
        return None
    large = [output for output in outputs if min(output.shape[2:]) >= MIN_SIDE]
    return large[-1] if large else outputs[0]


def overlay_map(image: Image.Image, heat: torch.Tensor, side: int) -> Image.Image:
    """Blend a map `[h', w']`, coloured from violet (0) to yellow (1), with an image resized to a square of `side` pixels."""
    resized = Image.fromarray(heat.numpy().astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    position = np.asarray(resized).clip(0, 1) * (len(VIRIDIS) - 1)
    low = np.minimum(position.astype(int), len(VIRIDIS) - 2)
    colours = VIRIDIS[low] + (VIRIDIS[low + 1] - VIRIDIS[low]) * (position - low)[..., None]
    pixels = np.asarray(image.convert("RGB").resize((side, side)), np.float32)
    return Image.fromarray(((1 - OPACITY) * pixels + OPACITY * colours).round().astype(np.uint8))
