"""Where a convolutional network looked for its answer: LayerCAM (Jiang et al. 2021, doi 10.1109/TIP.2021.3089943)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..core.errors import ImageError
from ..core.events import OnEvent, Progress
from ..data import images
from ..data.types import Preprocessing
from ..models.build import to_network_input

LEAST_SIDE = 6  # of a layer's output: the last ones of a small image have hardly a place left to tell apart
RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float32)  # viridis, in five steps
STRENGTH = 0.55
SIDE = 96  # pixels of a picture
AT_ONCE = 12


def render_maps(network: nn.Sequential, paths: Sequence[str], preprocessing: Preprocessing, on_event: OnEvent) -> dict[str, Image.Image]:
    """Return, by path, images with where the network looked for its answer laid over them; nothing for a network that cannot tell."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    device, found = next(network.parameters()).device, {}
    for start in range(0, len(paths), AT_ONCE):
        prepared = _prepare_batch(paths[start : start + AT_ONCE], preprocessing)
        if not prepared:
            continue
        x = torch.from_numpy(np.stack(list(prepared.values()))).permute(0, 3, 1, 2).float() / 255
        x = ((x - mean) / std).to(device)
        maps = compute_maps(network, x)
        if maps is None:
            return {}
        found |= {path: overlay_map(Image.fromarray(seen), place, SIDE) for (path, seen), place in zip(prepared.items(), maps, strict=True)}
        on_event(Progress("where it looked", start + len(prepared), len(paths)))
    return found


def _prepare_batch(paths: Sequence[str], preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """Return, by path, what the network sees of images; one that cannot be read any more is left out."""
    found = {}
    for path in paths:
        with suppress(ImageError):
            found[path] = images.prepare(images.open_image(path), preprocessing.size, preprocessing.full_size, preprocessing.resize)
    return found


def compute_maps(network: nn.Sequential, x: torch.Tensor) -> torch.Tensor | None:
    """Return how much each place speaks for the network's answer, `[b, h', w']` from 0 to 1; None for a network without convolutional features.

    `x` is a normalised batch `[b, 3, h, w]`. The layer is the last whose output has a side of at least 6, or the widest that comes after.
    """
    body = network[0]
    outputs: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1 and output.requires_grad:
            outputs.append(output)

    hooks = [module.register_forward_hook(keep) for module in body.modules() if not list(module.children())]
    try:
        with torch.enable_grad():
            # The gradient of a layer is wanted, not that of a weight: frozen weights pass it on only if what goes in asks for it.
            logits = network(to_network_input(x).detach().requires_grad_())
            chosen = _find_layer(body, outputs)
            if chosen is None:
                return None
            (gradient,) = torch.autograd.grad(logits.amax(dim=1).sum(), chosen)
    finally:
        for hook in hooks:
            hook.remove()
    maps = (gradient.relu() * chosen.detach()).sum(dim=1).relu()
    return (maps / maps.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()


def _find_layer(body: nn.Module, outputs: list[torch.Tensor]) -> torch.Tensor | None:
    """Return the output to explain; none for networks whose features are tokens, such as transformers."""
    last = outputs[-1] if outputs else None
    if last is None or last.shape[1] < getattr(body, "num_features", 0) // 4:
        return None
    wide = [output for output in outputs if min(output.shape[2:]) >= LEAST_SIDE]
    return wide[-1] if wide else outputs[0]


def overlay_map(image: Image.Image, place: torch.Tensor, side: int) -> Image.Image:
    """Lay a map `[h', w']` over an image as colours, violet to yellow; a square of `side` pixels, as the network saw it."""
    heat = np.asarray(Image.fromarray(place.numpy().astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    at = heat * (len(RAMP) - 1)
    low = np.minimum(at.astype(int), len(RAMP) - 2)
    colours = RAMP[low] + (RAMP[low + 1] - RAMP[low]) * (at - low)[..., None]
    picture = np.asarray(image.convert("RGB").resize((side, side)), np.float32)
    return Image.fromarray(((1 - STRENGTH) * picture + STRENGTH * colours).round().astype(np.uint8))
