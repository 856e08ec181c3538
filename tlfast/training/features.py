"""What a frozen backbone, or its lower stages, make of images: run once for each augmented view, kept in memory-mapped files for the next training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.torch_core import set_seed
from torch import nn

from ..core import cache
from ..core.events import Progress
from ..core.settings import Settings
from ..core.system import release_pages
from ..data import ImageTable, Store
from ..data.split import SPARE
from ..data.types import Row
from ..models.build import to_network_input
from ..models.fuse_bn import fuse_bn
from ..models.weights import hash_weights
from .augment import resolve_augmentation
from .feature_codec import decode, encode, row_shape, row_type
from .loaders import augmented_loader, plain_loader
from .session import Session
from .types import FeaturePass

KIND = "features"
FILE = "features.bin"
LAYOUT = 6  # to be raised when the features of the same images would come out otherwise
BATCH = 128  # images a forward pass


@dataclass(frozen=True)
class Part:
    """Features of a part of the data, one array a view: row i of view v is `arrays[v][places[v][i]]`. Of lower stages they are `[c, h, w]` or `[n, d]`."""

    arrays: list[np.ndarray]  # each m rows, often memory-mapped
    places: list[np.ndarray]  # each [n]
    labels: torch.Tensor  # [v * n] class index, views after one another

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        """Take `[b]` rows of all views together: `[b, d]` float32."""
        return decode(self.read(chosen))

    def read(self, chosen: torch.Tensor) -> np.ndarray:
        """Take `[b]` rows as they are kept."""
        view, row = np.divmod(chosen.numpy(), len(self.places[0]))
        taken = np.empty((len(row), *self.arrays[0].shape[1:]), self.arrays[0].dtype)
        for number, (array, places) in enumerate(zip(self.arrays, self.places, strict=True)):
            own = view == number
            taken[own] = array[places[row[own]]]
            release_pages(array)
        return taken


@dataclass(frozen=True)
class Features:
    """The backbone's output for the train part, in all its views, and for the valid part; and what it cost.

    `varied` is the valid part in all views, where it has any but the plain one: with folds, for another fold trains on it.
    """

    train: Part
    valid: Part
    varied: Part
    cost: FeaturePass


@dataclass(frozen=True)
class _View:
    """One pass over images. Number 0 is the plain view; the others are augmented, each in its own way."""

    number: int
    rows: Sequence[Row]


def extract(body: nn.Module, session: Session, settings: Settings) -> Features:
    """Run the backbone, or its lower stages, over the train part, once for each view, and over the valid part; or find what an earlier run kept.

    The first view is the plain image, as it will be seen when judged: measured on seedlings, features of augmented views alone cost seven
    points of accuracy. The body is in eval mode, so that its BatchNorm statistics stay as they were.
    """
    cheap, views = fuse_bn(body), _list_views(session.table, settings)
    names = _cache_names(body, session, views, settings)
    kept = [cache.find(KIND, name) if name else None for name in names]
    found = [_open_file(*each, settings.cache_format) if each else None for each in kept]
    total = sum(len(view.rows) for view, array in zip(views, found, strict=True) if array is None)
    started, done = time.perf_counter(), 0
    for i, view in enumerate(views):
        if found[i] is None:
            batches = _forward_batches(
                cheap,
                _build_loader(session.learn.dls, view, settings),
                settings,
                lambda n, before=done: session.on_event(Progress("backbone: features", before + n, total)),
            )
            found[i] = _collect(batches, names[i], settings.cache_format)
            done += len(view.rows)
    earlier = sum(about["seconds"] for _, about in filter(None, kept))
    cost = FeaturePass(total, time.perf_counter() - started, sum(len(view.rows) for view in views) - total, earlier)
    classes = {label: i for i, label in enumerate(session.table.classes)}
    train, valid = session.table.part("train"), session.table.part("valid")
    count, count_valid = len(views), len(views) if settings.fold is not None else 1
    parts = [_build_part(rows, views[:n], found[:n], classes) for rows, n in ((train, count), (valid, 1), (valid, count_valid))]
    return Features(*parts, cost)


def count_images(table: ImageTable, settings: Settings) -> list[int]:
    """Return how many images are run in each view, the plain one first."""
    return [len(view.rows) for view in _list_views(table, settings)]


def count_missing(body: nn.Module, session: Session, settings: Settings) -> list[int]:
    """Return how many images of each view no earlier run has kept what the body makes of."""
    views = _list_views(session.table, settings)
    return [0 if name and cache.find(KIND, name) else len(view.rows) for name, view in zip(_cache_names(body, session, views, settings), views, strict=True)]


def _list_views(table: ImageTable, settings: Settings) -> list[_View]:
    trainable = table.part("train") + table.part(SPARE)
    judged = table.part("valid") + (table.part("test") if table.own_folds else [])  # another fold needs all of them
    both = sorted(trainable + judged, key=lambda row: row.path)
    varied = both if settings.fold is not None else sorted(trainable, key=lambda row: row.path)  # with folds, every image is trained on by most of them
    return [_View(0, both), *(_View(number, varied) for number in range(1, settings.views if settings.augment != "none" else 1))]


def _cache_names(body: nn.Module, session: Session, views: Sequence[_View], settings: Settings) -> list[str]:
    """Return the cache name of each view's features, from all that they depend on; "" where nothing is kept."""
    if not session.store or not session.on_disk:
        return [""] * len(views)
    made_by = {"arch": settings.arch, "weights": hash_weights(body), "format": settings.cache_format, "device": session.learn.dls.device.type}
    common = {"layout": LAYOUT, **made_by, "preprocessing": asdict(session.preprocessing)}
    return [cache.make_key(**common, **_view_key(view, settings, session.store)) for view in views]


def _view_key(view: _View, settings: Settings, store: Store) -> dict[str, Any]:
    plain = {"store": store.key, "rows": [store.index[row.path] for row in view.rows]}
    if not view.number:
        return plain
    augmentation = resolve_augmentation(settings, store.grey)
    return {**plain, "view": view.number, "augmentation": asdict(augmentation) if augmentation else None, "seed": settings.split_seed}


def _build_loader(dls: DataLoaders, view: _View, settings: Settings) -> TfmdDL:
    set_seed(settings.split_seed + view.number, reproducible=True)  # each view by itself, for others may have been kept
    return augmented_loader(dls, view.rows, BATCH) if view.number else plain_loader(dls, view.rows, BATCH)


def _collect(batches: Iterator[np.ndarray], name: str, number_format: str) -> np.ndarray:
    """Return batches of rows as one array; kept under a name if it is given."""
    if not name:
        return np.concatenate(list(batches))
    return _open_file(*cache.get_or_create(KIND, name, lambda folder: _write_file(folder, batches)), number_format)


def _write_file(folder: Path, batches: Iterator[np.ndarray]) -> dict[str, Any]:
    images, started = 0, time.perf_counter()
    with open(folder / FILE, "wb") as file:
        for rows in batches:
            file.write(rows.tobytes())
            images += len(rows)
    return {"images": images, "shape": row_shape(rows), "seconds": time.perf_counter() - started}


def _open_file(folder: Path, about: dict[str, Any], number_format: str) -> np.ndarray:
    return np.memmap(folder / FILE, row_type(about["shape"], number_format), "r", shape=(about["images"],))


def _forward_batches(body: nn.Module, loader: TfmdDL, settings: Settings, report: Callable[[int], None]) -> Iterator[np.ndarray]:
    done = 0
    for x, *_ in loader:
        yield _forward(body, x, settings.cache_format)
        done += len(x)
        report(done)


@torch.inference_mode()
def _forward(body: nn.Module, x: torch.Tensor, number_format: str) -> np.ndarray:
    """`[b, 3, h, w]` -> b rows."""
    return encode(body(to_network_input(x)), number_format)


def _build_part(rows: Sequence[Row], views: Sequence[_View], arrays: Sequence[np.ndarray], classes: dict[str, int]) -> Part:
    indices = [{row.path: i for i, row in enumerate(view.rows)} for view in views]
    places = [np.array([index[row.path] for row in rows]) for index in indices]
    labels = torch.tensor([classes[row.label] for row in rows]).repeat(len(views))
    return Part(list(arrays), places, labels)
