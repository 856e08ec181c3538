"""The depth in between: a backbone's lower stages stay frozen and their output is kept, only what lies above is trained, on what is kept.

The lowest stages of a network are the dearest to run and need the least change. What they make of an image never changes while they are
frozen, so they are run once for each augmented view; an epoch then takes one view of each image.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from fastai.torch_core import TensorCategory
from torch import nn

from ..core import cache
from ..core.errors import UsageError
from ..core.events import OnEvent, Progress
from ..core.settings import Settings
from ..core.system import free_disk_gib, free_memory_gib
from ..data.store import SPARE_GIB
from ..models.build import to_network_input
from ..models.stages import SplitBody, list_stages, split_at
from .feature_codec import decode, encode, row_type
from .features import Features, Part, count_images
from .head import FeatureLoader
from .session import Session
from .types import FeaturePass

BATCH_FORWARD = 256  # activations a forward pass of the upper stages
HEAD_IMAGES = 8192  # are enough for the head to start from, for what follows trains it on all: FER2013 0.648 after it, as with 28,709
READ_AHEAD = 2  # batches
T = TypeVar("T")


def activation_shape(parts: SplitBody, size: int) -> tuple[int, ...]:
    """Return the shape of what the lower stages make of an image: `[c, h, w]` or `[n, d]`."""
    device = next(parts.upper.parameters()).device
    parts.lower.eval()  # or its statistics would learn from this
    with torch.inference_mode():
        return tuple(parts.lower(torch.zeros(1, 3, size, size, device=device)).shape[1:])


def compute_features(kept: Features, parts: SplitBody, on_event: OnEvent) -> Features:
    """Return the features that the upper stages make of the plain view of what is kept: what the head learns from before they train.

    Of HEAD_IMAGES training images at most, drawn by torch's generator.
    """
    parts.upper.eval()
    started = time.perf_counter()
    some = torch.randperm(len(kept.train.places[0]))[:HEAD_IMAGES].sort().values
    train, valid = (
        _forward_upper(parts.upper, kept.train, some, on_event),
        _forward_upper(parts.upper, kept.valid, torch.arange(len(kept.valid.places[0])), on_event),
    )
    return Features(train, valid, valid, FeaturePass(len(train) + len(valid), time.perf_counter() - started))


@torch.inference_mode()
def _forward_upper(upper: nn.Module, part: Part, images: torch.Tensor, on_event: OnEvent) -> Part:
    """Return the features of some images in their plain view, which is the first: so an image's number is its row."""
    device, count, made = next(upper.parameters()).device, len(images), []
    for rows in images.split(BATCH_FORWARD):
        made.append(encode(upper(to_network_input(part[rows].to(device))), "fp16"))
        on_event(Progress("upper stages: features", min(len(made) * BATCH_FORWARD, count), count))
    return Part([np.concatenate(made)], [np.arange(count)], part.labels[images])


class ActivationLoader(FeatureLoader):
    """Batches of kept activations, (`[b, ...]` float32, `[b]` class index): an epoch takes each image once, in one of its views by chance."""

    def __init__(self, part: Part, bs: int, shuffle: bool, device: torch.device) -> None:
        super().__init__(part, bs, shuffle, device, count=len(part.places[0]))

    def create_batches(self, samps):
        samples = torch.tensor(list(samps))
        # Drawn for the whole epoch at once, so that reading ahead draws nothing.
        views = torch.randint(len(self.part.arrays), (len(samples),))
        chosen = (samples + views * len(self.part.places[0])).split(self.bs)
        whole = [rows for rows in chosen if len(rows) == self.bs or not self.drop_last]
        for rows, read in zip(whole, read_ahead(self.part.read, whole), strict=True):
            yield to_network_input(decode(read)), TensorCategory(self.part.labels[rows])


def read_ahead(read: Callable[[Any], T], items: Iterable[Any]) -> Iterator[T]:
    """Yield what `read` makes of each item, in order; another thread reads the next ones meanwhile.

    It must not compute with torch: the threads that torch starts for a second thread wait actively, and take the cores from those that train.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def fit_to_disk(session: Session, settings: Settings) -> tuple[str, int]:
    """Return the depth and views of the settings, or fewer views or a higher stage where what is kept would take more room than there is.

    Two views are kept up as long as a higher stage allows it. What was decided once for the same images and settings stays so, for what is kept
    takes room itself. Raises UsageError where not even one view of the highest stage has room.
    """
    body = session.learn.model[0]
    deepest = len(list_stages(body, settings.arch))
    if int(settings.depth) > deepest:
        raise UsageError(f"--depth {settings.depth}: {settings.arch} has {deepest} stages above its stem", f"Use a number up to {deepest}, or all")
    shapes = {depth: activation_shape(split_at(body, settings.arch, depth, settings.size), settings.size) for depth in range(int(settings.depth), 0, -1)}
    counts = count_images(session.table, settings)

    def decide() -> dict[str, Any]:
        room = _available_gigabytes(settings, session.on_disk)
        for least in (min(2, settings.views), 1):
            for depth, shape in shapes.items():
                for views in range(settings.views, least - 1, -1):
                    if activation_gigabytes(shape, sum(counts[:views]), settings) <= room:
                        return {"depth": str(depth), "views": views}
        return {}

    limits = {"views": settings.views, "gigabytes": settings.cache_gb, "format": settings.cache_format, "on_disk": session.on_disk}
    values = {"shapes": {depth: list(shape) for depth, shape in shapes.items()}, "counts": counts, **limits}
    decided = cache.get_or_compute("rooms", cache.make_key(layout=2, images=session.table.fingerprint(), **values), decide)
    if "views" not in decided:
        room, least = _available_gigabytes(settings, session.on_disk), activation_gigabytes(shapes[1], counts[0], settings)
        way = "Give more --cache-gb" if room == settings.cache_gb else "Free some space"
        found = f"one view of the topmost takes {least:.2g} GB, there is room for {room:.2g}"
        raise UsageError(f"there is no room for the activations of a single stage: {found}", f"{way}, or use --partial or --full")
    return decided["depth"], decided["views"]


def _available_gigabytes(settings: Settings, on_disk: bool) -> float:
    """Return the gigabytes that may be taken: of the disk, or of memory where nothing is kept on disk."""
    free = (free_disk_gib(str(cache.find_root())) if on_disk else (free_memory_gib() or 0) / 2) - SPARE_GIB
    return min(max(free, 0.0) * 2**30 / 1e9, math.inf if settings.cache_gb is None else settings.cache_gb)


def activation_gigabytes(shape: tuple[int, ...], images: int, settings: Settings) -> float:
    """Return what the activations of so many images take."""
    return row_type(shape, settings.cache_format).itemsize * images / 1e9
