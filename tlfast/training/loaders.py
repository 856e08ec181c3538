"""fastai DataLoaders of an image table, for training and for evaluation."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import ColReader, ColSplitter, IntToFloatTensor, Normalize
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import RandTransform
from fastai.vision.core import PILImage
from PIL import Image

from ..core import DataError, ImageError, Settings, TrainingSettings
from ..core.system import count_cores, free_shared_memory, release_pages
from ..data import ImageTable, Preprocessing, Row, Store, images
from ..models import copy_to_device, fits_on_gpu
from .augment import build_augmentations
from .read_ahead import read_ahead

RELEASED_AT = 128 << 20  # bytes read from a memory-mapped store, after which its pages are released
MAPPED_AT_ONCE = 64 << 10  # bytes that the system maps per access, at least
RESTORE = "Restore the image; an interrupted training then continues with --resume"
CPU_BATCH = 32  # without training, larger batches take more memory on a CPU and no less time; see docs/benchmarks.md, "Memory"
BATCH = 128  # maximum number of images in a forward pass of a frozen network
READ_AHEAD = 2  # batches that each loader process holds, the default of torch


def build_loaders(
    table: ImageTable,
    preprocessing: Preprocessing,
    settings: Settings,
    device: torch.device,
    store: Store | None = None,
    pixels: torch.Tensor | None = None,
) -> DataLoaders:
    """Return the loaders of the train and valid splits, from the decoded images of a store if one is given, else from the image files.

    `pixels` are those of the store if other loaders have placed them on the device already. A batch is (`[b, 3, size, size]` float, normalized;
    `[b]` class index). Training batches are shuffled, augmented and all of full size; the default size until `--bs auto` is settled.
    """
    rows = table.part("train") + table.part("valid")
    stored: dict[str, Any] = {"num_workers": count_workers(settings, device)}
    if store:
        stored = {"store": store, "pixels": place_pixels(store, device) if pixels is None else pixels, "num_workers": 0}
    block = DataBlock(
        blocks=(TransformBlock(type_tfms=_open_pil, batch_tfms=IntToFloatTensor), CategoryBlock(vocab=list(table.classes), sort=False)),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        splitter=ColSplitter("is_valid"),
        item_tfms=Square(preprocessing),
        batch_tfms=[
            *build_augmentations(settings, grey=store is not None and store.grey),
            Normalize.from_stats(preprocessing.mean, preprocessing.std, cuda=False),
        ],
        dl_type=StoreLoader if store else FileLoader,
    )
    # The incomplete last batch is dropped, because BatchNorm fails on one image: a batch larger than the split would leave none.
    bs = min(settings.bs or TrainingSettings.bs, len(table.part("train")))
    dls = block.dataloaders(to_frame(rows), bs=bs, val_bs=bs, device=device, pin_memory=device.type == "cuda", **stored)
    return dls.to(device)


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the data frame that the DataBlock reads: columns path, label and is_valid."""
    return pd.DataFrame({"path": [r.path for r in rows], "label": [r.label for r in rows], "is_valid": [r.split == "valid" for r in rows]})


def plain_loader(dls: DataLoaders, rows: Sequence[Row], bs: int) -> TfmdDL:
    """Return a loader over labelled rows in order, without augmentation. On a CPU a batch has at most CPU_BATCH images."""
    bs = min(bs, CPU_BATCH) if dls.device.type == "cpu" else bs
    return dls.test_dl(to_frame(rows), with_labels=True, bs=bs, shuffle=False, drop_last=False)


def augmented_loader(dls: DataLoaders, rows: Sequence[Row], bs: int) -> TfmdDL:
    """Return a loader over labelled rows in order, with the augmentation of the train split, drawn anew in every pass."""
    loader = plain_loader(dls, rows, bs)
    for items in loader.dataset.tls:
        items.tfms.split_idx = 0
    return loader


def count_workers(settings: Settings, device: torch.device) -> int:
    """Return the number of loader processes. They decode while a GPU trains; on a CPU they would compete with the training.

    Their batches must have room in the shared memory: without it, the system kills a process.
    """
    if settings.workers is not None:
        return settings.workers
    room = free_shared_memory() / (3 * settings.full_size**2 * max(settings.bs, BATCH)) - 1  # in batches; one is in use
    return int(min(_most_workers(device), max(0.0, room / READ_AHEAD)))


def _most_workers(device: torch.device) -> int:
    """Return the number of loader processes if there is room for their batches.

    Windows starts processes without the memory of this one, and fastai's loader holds tensors on the GPU, which cannot be sent to them.
    """
    return 0 if device.type == "cpu" or os.name == "nt" else min(8, count_cores())


def describe_workers(settings: Settings, device: torch.device) -> list[str]:
    """Return a note if the shared memory has no room for the batches of all loader processes."""
    count, most = count_workers(settings, device), _most_workers(device)
    if settings.workers is not None or count == most:
        return []
    return [f"{count} loader processes in place of {most}, because /dev/shm is full or small; a container has more of it with: docker run --shm-size 2g"]


class Square(RandTransform):
    """Resize and crop an image as `data.images.prepare` does; in training, with a random crop from `full_size`."""

    split_idx, order = None, 1  # all splits, and the order of fastai's Resize

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size, self.full_size, self.policy = preprocessing.size, preprocessing.full_size, preprocessing.resize
        self.corner: tuple[int, int] | None = None  # left and top of a random crop

    def before_call(self, b: Any, split_idx: int) -> None:
        margin = self.full_size - self.size
        self.corner = (random.randint(0, margin), random.randint(0, margin)) if split_idx == 0 and margin else None

    def encodes(self, x: Image.Image) -> PILImage:
        if self.corner is None:
            return PILImage(Image.fromarray(images.prepare(x, self.size, self.full_size, self.policy)))
        left, top = self.corner
        return PILImage(images.resize(x, self.full_size, self.policy).crop((left, top, left + self.size, top + self.size)))


def _open_pil(path: str) -> PILImage:
    try:
        return PILImage(images.open_image(path))
    except ImageError as error:
        raise DataError(f"{path} {error.message}", RESTORE) from None


class FileLoader(TfmdDL):
    """fastai's TfmdDL over image files. An unreadable image raises the same error with and without loader processes."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except DataError as error:
            if not error.message.startswith("Caught DataError in"):
                raise
            # torch makes the traceback in the loader process the message.
            raise DataError(error.message.rpartition("DataError: ")[2].splitlines()[0], RESTORE) from None


class StoreLoader(TfmdDL):
    """fastai's TfmdDL over a store: a batch is one gather by index, where TfmdDL opens, resizes and collates image by image.

    Batch transforms, `show_batch` and `test_dl` work as in TfmdDL; new images are read from their files. Grey images keep one channel until Normalize
    expands them to three, which saves two thirds of the work of augmentation. If the pixels are on the loader's GPU, indices are copied there once
    per epoch. If they are in main memory, batches are gathered and copied while the GPU trains.
    """

    def __init__(self, dataset: Any, *, store: Store, pixels: torch.Tensor, **kwargs: Any) -> None:
        self.store, self.pixels = store, pixels
        self.indices = torch.tensor([store.index[path] for path in dataset.items["path"]])
        self.targets = _class_indices(dataset)
        super().__init__(dataset, **{**kwargs, "pin_memory": False})  # `copy_to_device` pins

    def new(self, dataset: Any = None, cls: type[TfmdDL] | None = None, **kwargs: Any) -> TfmdDL:
        if dataset is not None and not self._holds(dataset):
            return super().new(dataset, TfmdDL, **kwargs)
        return super().new(dataset, cls, **{"store": self.store, "pixels": self.pixels, **kwargs})

    def _holds(self, dataset: Any) -> bool:
        """Return whether all images of a dataset are in the store. Those of `learn.predict` need not be; an exported Learner has none."""
        items = dataset.items
        return isinstance(items, pd.DataFrame) and len(items) > 0 and all(path in self.store.index for path in items["path"])

    def create_batches(self, samps: Iterator[int]) -> Iterator[tuple[torch.Tensor, ...]]:
        samples = torch.tensor(list(samps), dtype=torch.long)  # a process may have no image
        chosen = [self.indices[samples]] + ([] if self.targets is None else [self.targets[samples]])
        random_crop = getattr(self.dataset, "split_idx", None) == 0
        margin = self.pixels.shape[-1] - self.store.size if random_crop else 0
        chosen += [torch.randint(margin + 1, (len(samples), 2))] if margin else []
        local = self.pixels.device == self.device
        chosen = [copy_to_device(values, self.device) for values in chosen] if local else chosen
        batches = [
            batch for batch in zip(*(split_batches(values, self.bs) for values in chosen), strict=True) if len(batch[0]) == self.bs or not self.drop_last
        ]

        def read(batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            corners = batch[-1] if margin else None
            return gather_crops(self.pixels, batch[0], self.store.size, corners), *batch[1 : 1 + (self.targets is not None)]

        for x, *y in self._release_pages(map(read, batches) if local else read_ahead(read, batches, self.device)):
            yield TensorImage(x), *map(TensorCategory, y)

    def _release_pages(self, batches: Iterator[tuple[torch.Tensor, ...]]) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the batches; release the pages of a memory-mapped store from time to time."""
        images_mapped = max(self.bs, RELEASED_AT // max(MAPPED_AT_ONCE, self.store.pixels[0].nbytes))
        for number, batch in enumerate(batches):
            if number % (images_mapped // self.bs) == 0:
                release_pages(self.store.pixels)
            yield batch


def split_batches(samples: torch.Tensor, bs: int) -> tuple[torch.Tensor, ...]:
    """Split samples `[n]` into batches of `bs`; the last one may be smaller. Without samples there is no batch."""
    batches: tuple[torch.Tensor, ...] = samples.split(bs)
    return batches if len(samples) else ()


def _class_indices(dataset: Any) -> torch.Tensor | None:
    """Return the class index of each item of a dataset `[n]`; None without labels."""
    if len(dataset.tls) == 1:
        return None
    classes = {label: i for i, label in enumerate(dataset.vocab)}
    return torch.tensor([classes[label] for label in dataset.items["label"]])


def place_pixels(store: Store, device: torch.device) -> torch.Tensor:
    """Return the store's pixels `[n, k, f, f]`: on the GPU if there is room for them, else in main memory."""
    pixels = torch.from_numpy(store.pixels)
    return pixels.to(device) if fits_on_gpu(pixels.nbytes, device) else pixels


def gather_crops(pixels: torch.Tensor, indices: torch.Tensor, size: int, corners: torch.Tensor | None) -> torch.Tensor:
    """Return crops `[b, k, size, size]` of the images `indices` `[b]` in `[n, k, f, f]`.

    `corners` `[b, 2]` are their upper left corners, as row and column; None for central crops.
    """
    margin = pixels.shape[-1] - size
    if not margin:
        return pixels[indices]
    if corners is None:
        start = margin // 2
        return pixels[:, :, start : start + size, start : start + size][indices]
    return pixels.unfold(2, size, 1).unfold(3, size, 1)[indices, :, corners[:, 0], corners[:, 1]]
