"""fastai DataBlocks and DataLoaders from an image table: what the network sees in training and when it is judged."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import ColReader, ColSplitter, IntToFloatTensor, Normalize
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import RandTransform
from fastai.vision.core import PILImage
from PIL import Image

from ..core.settings import Settings
from ..core.system import count_cores, release_pages
from ..data import images
from ..data.store import Store
from ..data.table import ImageTable
from ..data.types import Preprocessing, Row
from .augment import build_augmentations

RELEASED_AT, MAPPED_AT_ONCE = 128 << 20, 64 << 10  # bytes: read of a memory-mapped store; that the system maps at the least
SHARE_OF_GPU = 0.25  # of its free memory, that a store may take: the training needs most of it


def build_loaders(table: ImageTable, preprocessing: Preprocessing, settings: Settings, device: torch.device, store: Store | None = None) -> DataLoaders:
    """Return the loaders of the train and valid parts, fed from a store where one is given, else from the image files.

    A batch is (`[b, 3, size, size]` float, normalized; `[b]` class index). Training batches are shuffled, augmented and all full.
    """
    rows = table.part("train") + table.part("valid")
    stored = {"store": store, "pixels": place_pixels(store, device), "num_workers": 0} if store else {"num_workers": count_workers(settings, device)}
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
        dl_type=StoreLoader if store else TfmdDL,
    )
    # A batch larger than the training part would leave nothing, for the incomplete last batch is dropped: BatchNorm fails on one image.
    bs = min(settings.bs, len(table.part("train")))
    dls = block.dataloaders(to_frame(rows), bs=bs, val_bs=bs, device=device, pin_memory=device.type == "cuda", **stored)
    return dls.to(device)


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as the data frame that the DataBlock reads: path, label, is_valid."""
    return pd.DataFrame({"path": [r.path for r in rows], "label": [r.label for r in rows], "is_valid": [r.split == "valid" for r in rows]})


def plain_loader(dls: DataLoaders, rows: Sequence[Row], bs: int) -> TfmdDL:
    """Return a loader over labelled rows in their order, without augmentation."""
    return dls.test_dl(to_frame(rows), with_labels=True, bs=bs, shuffle=False, drop_last=False)


def augmented_loader(dls: DataLoaders, rows: Sequence[Row], bs: int) -> TfmdDL:
    """Return a loader over labelled rows in their order, augmented afresh on every pass as the train part is."""
    loader = plain_loader(dls, rows, bs)
    for items in loader.dataset.tls:
        items.tfms.split_idx = 0
    return loader


def count_workers(settings: Settings, device: torch.device) -> int:
    """Loader processes: beside a GPU they decode while it trains; on a CPU they would take the cores that train."""
    if settings.workers is not None:
        return settings.workers
    return 0 if device.type == "cpu" else min(8, count_cores())


class Square(RandTransform):
    """Make an image the square that `images.prepare` makes; in training the crop from `full_size` falls anywhere."""

    split_idx, order = None, 1  # for every part, as fastai's own Resize

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size, self.full_size, self.policy = preprocessing.size, preprocessing.full_size, preprocessing.resize
        self.place: tuple[int, int] | None = None

    def before_call(self, b, split_idx: int) -> None:
        spare = self.full_size - self.size
        self.place = (random.randint(0, spare), random.randint(0, spare)) if split_idx == 0 and spare else None

    def encodes(self, x: Image.Image) -> PILImage:
        if self.place is None:
            return PILImage(Image.fromarray(images.prepare(x, self.size, self.full_size, self.policy)))
        left, top = self.place
        return PILImage(images.resize(x, self.full_size, self.policy).crop((left, top, left + self.size, top + self.size)))


def _open_pil(path: str) -> PILImage:
    return PILImage(images.open_image(path))


class StoreLoader(TfmdDL):
    """fastai's TfmdDL over a store: a batch is one gather by index, where TfmdDL opens, resizes and collates image by image.

    All else is fastai's: batch transforms, `show_batch`, `test_dl`. Grey images stay in one channel until Normalize makes them three, which
    spares the augmentation two thirds of its work.
    """

    def __init__(self, dataset, store: Store | None = None, pixels: torch.Tensor | None = None, **kwargs) -> None:
        self.store, self.pixels = store, pixels
        self.places = torch.tensor([store.index[path] for path in dataset.items["path"]], device=pixels.device)
        self.targets = _class_indices(dataset)
        super().__init__(dataset, **{**kwargs, "pin_memory": kwargs.get("pin_memory") and not pixels.is_cuda})

    def new(self, dataset=None, cls=None, **kwargs):
        return super().new(dataset, cls, **{"store": self.store, "pixels": self.pixels, **kwargs})

    def create_batches(self, samps):
        samples = torch.tensor(list(samps))
        varied = getattr(self.dataset, "split_idx", None) == 0
        images_mapped = max(self.bs, RELEASED_AT // max(MAPPED_AT_ONCE, self.store.pixels[0].nbytes))
        for number, chosen in enumerate(samples.split(self.bs)):
            if number % (images_mapped // self.bs) == 0:
                release_pages(self.store.pixels)
            if len(chosen) == self.bs or not self.drop_last:
                x = TensorImage(gather_crops(self.pixels, self.places[chosen.to(self.places.device)], self.store.size, varied))
                yield (x,) if self.targets is None else (x, TensorCategory(self.targets[chosen]))


def _class_indices(dataset) -> torch.Tensor | None:
    """Return the class index of each item of a dataset; None if it has no labels."""
    if len(dataset.tls) == 1:
        return None
    classes = {label: i for i, label in enumerate(dataset.vocab)}
    return torch.tensor([classes[label] for label in dataset.items["label"]])


def place_pixels(store: Store, device: torch.device) -> torch.Tensor:
    """Return the store's pixels, on the GPU itself where they take no more than a quarter of what is free there, else where they are."""
    pixels = torch.from_numpy(store.pixels)
    if device.type == "cuda" and pixels.nbytes <= SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
        return pixels.to(device)
    return pixels


def gather_crops(pixels: torch.Tensor, places: torch.Tensor, size: int, varied: bool) -> torch.Tensor:
    """Take images `[b, k, size, size]` out of `[n, k, f, f]`: anywhere in the image if `varied`, else its centre."""
    spare = pixels.shape[-1] - size
    if not spare:
        return pixels[places]
    if not varied:
        start = spare // 2
        return pixels[:, :, start : start + size, start : start + size][places]
    top, left = torch.randint(spare + 1, (2, len(places))).to(pixels.device)
    return pixels.unfold(2, size, 1).unfold(3, size, 1)[places, :, top, left]
