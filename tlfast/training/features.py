"""Cached feature extraction: one pass of a frozen backbone, or of its lower stages, per augmented view."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.torch_core import set_seed
from torch import nn

from ..core import Progress, Settings, cache
from ..core.system import release_pages
from ..data import ImageTable, Row, Store
from ..data.split import SPARE
from ..models import fits_on_gpu, hash_weights, run_by_halves, to_network_input
from . import processes
from .amp import FrozenBody, choose_pass_precision
from .augment import resolve_augmentation
from .feature_codec import Rows, decode, encode, row_shape, row_type, to_tensors
from .loaders import BATCH, augmented_loader, plain_loader
from .session import Session
from .types import FeaturePass

KIND = "features"
TITLE = "backbone: features"  # of the progress
FILE = "features.bin"
LAYOUT = 8  # increase it when the features of the same images change
PLACED_AT_ONCE = 4096  # items that are read at once when they are copied to a GPU


@dataclass(frozen=True)
class SplitFeatures:
    """Features of the n images of a split in v views: `[d]` of a whole backbone, `[c, h, w]` or `[n, d]` of its lower stages.

    The features of image i in view v are row `arrays[v][indices[v][i]]`. As a sequence it has v * n items, one view after the other.
    """

    arrays: Sequence[Rows]  # one per view, often memory-mapped
    indices: Sequence[np.ndarray[Any, np.dtype[np.int64]]]  # one per view, each [n]
    labels: torch.Tensor  # class index [v * n]

    @property
    def images(self) -> int:
        """The number of images n."""
        return len(self.indices[0])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the features of the items `[b]`: `[b, ...]` float32."""
        return decode(self.read(chosen))

    def place(self, device: torch.device) -> tuple[torch.Tensor, ...] | None:
        """Return all items on a GPU, as `feature_codec.to_tensors` gives them, if there is room for them; else None."""
        if not fits_on_gpu(len(self) * self.arrays[0].dtype.itemsize * math.prod(self.arrays[0].shape[1:]), device):
            return None
        placed: tuple[torch.Tensor, ...] = ()
        for chosen in torch.arange(len(self)).split(PLACED_AT_ONCE):
            parts = to_tensors(self.read(chosen))
            placed = placed or tuple(torch.empty((len(self), *part.shape[1:]), dtype=part.dtype, device=device) for part in parts)
            for whole, part in zip(placed, parts, strict=True):
                whole[chosen[0] : chosen[-1] + 1] = part.to(device)
        return placed

    def read(self, chosen: torch.Tensor) -> Rows:
        """Return the rows of the items `[b]` as stored."""
        view, image = np.divmod(chosen.numpy(), self.images)
        rows = np.empty((len(image), *self.arrays[0].shape[1:]), self.arrays[0].dtype)
        for number, (array, indices) in enumerate(zip(self.arrays, self.indices, strict=True)):
            in_view = view == number
            rows[in_view] = array[indices[image[in_view]]]
            release_pages(array)
        return rows


@dataclass(frozen=True)
class Features:
    """Output of a frozen network for the train split in all views and for the plain valid split, and its cost.

    `valid_views` is the valid split in all views when folds are used, because other folds train on it; otherwise in the plain view.
    """

    train: SplitFeatures
    valid: SplitFeatures
    valid_views: SplitFeatures
    cost: FeaturePass


@dataclass(frozen=True)
class _View:
    """One pass over images. View 0 is plain; each other view has its own random augmentation."""

    number: int
    rows: Sequence[Row]


def extract(body: nn.Module, session: Session, settings: Settings, title: str = TITLE) -> Features:
    """Run `body` (`[b, 3, h, w]` -> `[b, ...]`) on the train split in every view and on the valid split, or read cached features.

    The first view is the plain image, as in evaluation; see docs/benchmarks.md, "Views". The body runs in eval mode, so that its BatchNorm
    statistics do not change. `title` names the progress. Raises DataError if the cache cannot be written.
    """
    views = _list_views(session.table, settings)
    arrays, cost = _extract_views(body, session, views, settings, title)
    classes = {label: i for i, label in enumerate(session.table.classes)}
    train, valid = session.table.part("train"), session.table.part("valid")
    count = len(views) if settings.fold is not None else 1
    return Features(
        _build_split(train, views, arrays, classes),
        _build_split(valid, views[:1], arrays[:1], classes),
        _build_split(valid, views[:count], arrays[:count], classes),
        cost,
    )


def _extract_views(body: nn.Module, session: Session, views: Sequence[_View], settings: Settings, title: str = TITLE) -> tuple[list[Rows], FeaturePass]:
    """Return the features of each view, and what they cost. Several processes begin with different views, and read those of the others."""
    precision = pass_precision(body, session, settings)
    network = FrozenBody(body, precision)
    names = _cache_names(body, session, views, settings, precision)
    cached = [cache.find(KIND, name) if name else None for name in names]
    total = sum(len(view.rows) for view, entry in zip(views, cached, strict=True) if entry is None)
    started, done = time.perf_counter(), 0
    arrays: dict[int, Rows] = {}
    for number in _rotate(len(views), processes.rank()):
        view, name, entry = views[number], names[number], cached[number]
        if entry is not None:
            arrays[number] = _open_file(*entry, settings.cache_format)
            continue

        def report(images: int, before: int = done) -> None:
            session.on_event(Progress(title, before + images, total))

        batches = _forward_batches(network, _build_loader(session.learn.dls, view, settings), settings.cache_format, report)
        arrays[number] = _collect(batches, name if session.on_disk else "", settings.cache_format)
        done += len(view.rows)
    cached_seconds = sum(about["seconds"] for _, about in filter(None, cached))
    kept = sum(len(view.rows) for view in views) - total
    return [arrays[number] for number in range(len(views))], FeaturePass(total, time.perf_counter() - started, kept, cached_seconds, precision)


def _rotate(length: int, first: int) -> list[int]:
    """Return the numbers below `length`, beginning with `first`.

    >>> _rotate(3, 1)
    [1, 2, 0]
    """
    return [(first + number) % length for number in range(length)]


def extract_view(body: nn.Module, session: Session, settings: Settings, number: int) -> None:
    """Run `body` on the images of one view, and cache the result, as `extract` does with all views.

    Raises DataError if the cache cannot be written; with `--store auto` the result is lost then.
    """
    _extract_views(body, session, [_list_views(session.table, settings)[number]], settings)


def compute_plain(body: nn.Module, session: Session, rows: Sequence[Row], settings: Settings, report: Callable[[int], None]) -> np.ndarray[Any, Any]:
    """Return the output of `body` for the plain images of `rows`, `[n, ...]` float32, without the cache. `report` receives the number of images done."""
    network = FrozenBody(body, pass_precision(body, session, settings))
    return np.concatenate(list(_forward_batches(network, plain_loader(session.learn.dls, rows, BATCH), "fp32", report)))


def pass_precision(network: nn.Module, session: Session, settings: Settings) -> str:
    """Return the precision of the forward passes of a frozen network on the images of a session."""
    return choose_pass_precision(network, session.learn.dls.device, settings, (3, settings.size, settings.size))


def broadcast_precision(network: nn.Module, session: Session, settings: Settings) -> Settings:
    """Return the settings with `pass_precision` of the first process as `amp`: the timings of several processes may differ. All processes must call it."""
    return replace(settings, amp=cast(Any, processes.broadcast(pass_precision(network, session, settings))))


def count_images(table: ImageTable, settings: Settings) -> list[int]:
    """Return the number of images of each view, the plain view first."""
    return [len(view.rows) for view in _list_views(table, settings)]


def count_missing(body: nn.Module, session: Session, settings: Settings) -> list[int]:
    """Return the number of images of each view whose features are not in the cache."""
    missing = find_missing(body, session, settings)
    return [images if number in missing else 0 for number, images in enumerate(count_images(session.table, settings))]


def find_missing(body: nn.Module, session: Session, settings: Settings) -> dict[int, str]:
    """Return number -> name of each view whose features are not in the cache; the names are "" if nothing is cached on disk."""
    names = _cache_names(body, session, _list_views(session.table, settings), settings, pass_precision(body, session, settings))
    return {number: name for number, name in enumerate(names) if not (name and cache.find(KIND, name))}


def _list_views(table: ImageTable, settings: Settings) -> list[_View]:
    trainable = table.part("train") + table.part(SPARE)
    evaluated = table.part("valid") + (table.part("test") if table.official_folds else [])  # other folds need all of them
    both = sorted(trainable + evaluated, key=lambda row: row.path)
    augmented = both if settings.fold is not None else sorted(trainable, key=lambda row: row.path)  # most folds train on every image
    return [_View(0, both), *(_View(number, augmented) for number in range(1, settings.views if settings.augment != "none" else 1))]


def _cache_names(body: nn.Module, session: Session, views: Sequence[_View], settings: Settings, precision: str) -> list[str]:
    """Return the cache name of each view, made from everything that its features depend on; "" without a cache."""
    if not session.store or not session.store.cached:
        return [""] * len(views)
    network = {"arch": settings.arch, "weights": hash_weights(body), "format": settings.cache_format, "device": session.learn.dls.device.type}
    if precision != "off":  # earlier versions computed in float32 only
        network["precision"] = precision
    common = {"layout": LAYOUT, **network, "preprocessing": asdict(session.preprocessing)}
    return [cache.make_key(**common, **_view_key(view, settings, session.store)) for view in views]


def _view_key(view: _View, settings: Settings, store: Store) -> dict[str, Any]:
    plain = {"store": store.key, "rows": [store.index[row.path] for row in view.rows]}
    if not view.number:
        return plain
    augmentation = resolve_augmentation(settings, store.grey)
    return {**plain, "view": view.number, "augmentation": asdict(augmentation) if augmentation else None, "seed": settings.split_seed}


def _build_loader(dls: DataLoaders, view: _View, settings: Settings) -> TfmdDL:
    set_seed(settings.split_seed + view.number)  # per view, because other views may be cached
    return augmented_loader(dls, view.rows, BATCH) if view.number else plain_loader(dls, view.rows, BATCH)


def _collect(batches: Iterator[Rows], name: str, number_format: str) -> Rows:
    """Return batches of rows as one array; with a name, as a memory-mapped file in the cache."""
    if not name:
        return np.concatenate(list(batches))
    return _open_file(*cache.get_or_create(KIND, name, lambda folder: _write_file(folder, batches)), number_format)


def _write_file(folder: Path, batches: Iterator[Rows]) -> dict[str, Any]:
    images, started = 0, time.perf_counter()
    with open(folder / FILE, "wb") as file:
        for rows in batches:
            file.write(rows.tobytes())
            images += len(rows)
    return {"images": images, "shape": row_shape(rows), "seconds": time.perf_counter() - started}


def _open_file(folder: Path, about: dict[str, Any], number_format: str) -> Rows:
    return np.memmap(folder / FILE, row_type(about["shape"], number_format), "r", shape=(about["images"],))


def _forward_batches(network: nn.Module, loader: TfmdDL, number_format: str, report: Callable[[int], None]) -> Iterator[Rows]:
    """Yield the rows of each batch; `report` receives the number of images done."""

    @torch.inference_mode()
    def forward(x: torch.Tensor) -> Rows:
        return encode(network(to_network_input(x)), number_format)

    done = 0
    for x, *_ in loader:
        yield run_by_halves(forward, x)
        done += len(x)
        report(done)


def _build_split(rows: Sequence[Row], views: Sequence[_View], arrays: Sequence[Rows], classes: Mapping[str, int]) -> SplitFeatures:
    """Select the rows of a split from the arrays of all images."""
    row_numbers = [{row.path: i for i, row in enumerate(view.rows)} for view in views]
    indices = [np.array([numbers[row.path] for row in rows]) for numbers in row_numbers]
    labels = torch.tensor([classes[row.label] for row in rows]).repeat(len(views))
    return SplitFeatures(list(arrays), indices, labels)
