"""Training of the upper stages on cached activations of the lower stages: sizes, room on the disk, loader and features.

The frozen lower stages run once per augmented view; their output is cached by `features.extract`.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core import OnEvent, Progress, Settings, TrainingSettings, UsageError, cache
from ..core.system import free_disk_gib, free_memory_gib, total_memory_gib
from ..data.store import SPARE_GIB
from ..models import SplitBody, list_stages, run_by_halves, split_at, to_network_input
from .amp import autocast_passes
from .feature_codec import encode, row_type
from .feature_learner import FeatureLoader
from .features import Features, SplitFeatures, count_images
from .loaders import split_batches
from .session import Session
from .types import FeaturePass

BATCH_FORWARD = 256  # activations in a forward pass of the upper stages
HEAD_IMAGES = 8192  # most training images of the head's phase; see docs/benchmarks.md, "Head"


def activation_shape(parts: SplitBody, size: int) -> tuple[int, ...]:
    """Return the shape of the lower stages' output for one image of `size` pixels: `[c, h, w]` or `[n, d]`."""
    device = next(parts.upper.parameters()).device
    parts.lower.eval()  # so that BatchNorm statistics do not change
    with torch.inference_mode():
        return tuple(parts.lower(torch.zeros(1, 3, size, size, device=device)).shape[1:])


def compute_features(activations: Features, parts: SplitBody, on_event: OnEvent) -> Features:
    """Return features of the whole backbone, from cached activations in the plain view: input for the head's phase.

    The upper stages run in the precision in which the lower ones ran.

    At most HEAD_IMAGES training images are used, drawn by torch's generator.
    """
    parts.upper.eval()
    started = time.perf_counter()
    sample = torch.randperm(activations.train.images)[:HEAD_IMAGES].sort().values
    precision = activations.cost.precision
    train = _forward_upper(parts.upper, activations.train, sample, precision, on_event)
    valid = _forward_upper(parts.upper, activations.valid, torch.arange(activations.valid.images), precision, on_event)
    return Features(train, valid, valid, FeaturePass(len(train) + len(valid), time.perf_counter() - started, precision=precision))


@torch.inference_mode()
def _forward_upper(upper: nn.Module, activations: SplitFeatures, images: torch.Tensor, precision: str, on_event: OnEvent) -> SplitFeatures:
    """Return the features of some images `[m]` in the plain view. It is the first view, so image index equals item index."""
    device, count = next(upper.parameters()).device, len(images)
    rows: list[np.ndarray[Any, Any]] = []

    def forward(x: torch.Tensor) -> np.ndarray[Any, Any]:
        with autocast_passes(device, precision):
            values = upper(to_network_input(x))
        return encode(values.float(), "fp16")

    for batch in split_batches(images, BATCH_FORWARD):
        rows.append(run_by_halves(forward, activations[batch].to(device)))
        on_event(Progress("upper stages: features", min(len(rows) * BATCH_FORWARD, count), count))
    return SplitFeatures([np.concatenate(rows)], [np.arange(count)], activations.labels[images])


class ActivationLoader(FeatureLoader):
    """Batches of cached activations: (`[b, ...]` float32, `[b]` class index). An epoch has each image once, in a random view."""

    ahead = True

    def __init__(self, features: SplitFeatures, bs: int, shuffle: bool, device: torch.device, soft: SplitFeatures | None = None) -> None:
        super().__init__(features, bs, shuffle, device, features.images, soft)

    def choose_items(self, samples: torch.Tensor) -> torch.Tensor:
        return samples + torch.randint(len(self.features.arrays), (len(samples),)) * self.features.images


def fit_to_disk(session: Session, settings: Settings) -> tuple[str, int]:
    """Return depth and views: those of the settings, or fewer views or a smaller depth if the activations need more room than there is.

    Two views are preferred to a greater depth. The choice is cached for the same images and settings, because cached activations themselves take room;
    a better one replaces it once there is room for it. Raises UsageError if the backbone has fewer stages, or if there is no room for one view of the
    topmost stage.
    """
    body = session.learn.model[0]
    deepest = len(list_stages(body, settings.arch))
    if int(settings.depth) > deepest:
        raise UsageError(f"--depth {settings.depth}: {settings.arch} has {deepest} stages above its stem", f"Use a number up to {deepest}, or all")
    shapes = {depth: activation_shape(split_at(body, settings.arch, depth, settings.size), settings.size) for depth in range(int(settings.depth), 0, -1)}
    counts = count_images(session.table, settings)

    room = _available_gigabytes(settings, session.on_disk)
    least_views = (min(2, settings.views), 1)
    choices = [(depth, views) for least in least_views for depth in shapes for views in range(settings.views, least - 1, -1)]  # the preferred ones first
    limits = {"views": settings.views, "gigabytes": settings.cache_gb, "format": settings.cache_format}
    values = {"shapes": {depth: list(shape) for depth, shape in shapes.items()}, "counts": counts, **limits}
    images = session.table.fingerprint()
    for depth, views in choices:
        name = cache.make_key(layout=3, images=images, choice=(depth, views), **values) if session.on_disk else ""
        fits = activation_gigabytes(shapes[depth], sum(counts[:views]), settings) <= room
        if fits or (name and cache.find("rooms", name)):
            if name:
                cache.get_or_compute("rooms", name, partial(dict, depth=depth, views=views))
            return str(depth), views
    raise _no_room(room, activation_gigabytes(shapes[1], counts[0], settings), settings)


def _no_room(room: float, needed: float, settings: TrainingSettings) -> UsageError:
    advice = "Give more --cache-gb" if room == settings.cache_gb else "Free some space"
    message = f"no room for cached activations: one view of the topmost stage takes {needed:.2g} GB, {room:.2g} GB are available"
    return UsageError(message, f"{advice}, or use --partial or --full")


def _available_gigabytes(settings: TrainingSettings, on_disk: bool) -> float:
    """Return the room for activations in GB, within `--cache-gb`: on the disk, or half the memory if nothing is cached on disk.

    The memory is what is free, where the system tells it, else that of the machine.
    """
    memory = free_memory_gib() or total_memory_gib() or math.inf
    free = (free_disk_gib(str(cache.find_root())) if on_disk else memory / 2) - SPARE_GIB
    return min(max(free, 0.0) * 2**30 / 1e9, math.inf if settings.cache_gb is None else settings.cache_gb)


def activation_gigabytes(shape: tuple[int, ...], images: int, settings: TrainingSettings) -> float:
    """Return the size in GB of the activations of `images` images, each of `shape`."""
    return row_type(shape, settings.cache_format).itemsize * images / 1e9
