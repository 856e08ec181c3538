"""fastai DataBlocks and DataLoaders from an image table: what the network sees in training and when it is judged."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.load import DataLoader
from fastai.data.transforms import ColReader, ColSplitter, IntToFloatTensor, Normalize
from fastai.torch_core import TensorCategory
from fastai.vision.augment import Hue, RandomErasing, RandTransform, Saturation, aug_transforms
from fastai.vision.core import PILImage
from PIL import Image

from .. import images
from ..machine import cores
from ..results import Row
from ..settings import Settings
from .table import ImageTable

Stats = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel, of values in 0..1

# How far each preset goes: aug_transforms' own arguments, then the ranges of saturation and hue.
PRESETS = {
    "light": {"max_rotate": 5.0, "max_zoom": 1.05, "max_lighting": 0.1, "max_warp": 0.0},
    "standard": {"max_rotate": 10.0, "max_zoom": 1.1, "max_lighting": 0.2, "max_warp": 0.1},
    "strong": {"max_rotate": 20.0, "max_zoom": 1.25, "max_lighting": 0.4, "max_warp": 0.2},
}
COLOUR = {"light": (0.1, 0.02), "standard": (0.2, 0.05), "strong": (0.4, 0.1)}


def build_loaders(table: ImageTable, settings: Settings, stats: Stats, device: torch.device) -> DataLoaders:
    """Return the loaders of the train and valid parts.

    A batch is (`[b, 3, size, size]` float, normalised by `stats`; `[b]` class index). Training batches are shuffled, augmented and all full.
    """
    rows = table.part("train") + table.part("valid")
    block = DataBlock(
        blocks=(TransformBlock(type_tfms=_open, batch_tfms=IntToFloatTensor), CategoryBlock(vocab=list(table.classes), sort=False)),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        splitter=ColSplitter("is_valid"),
        item_tfms=Square(settings),
        batch_tfms=[*augmentations(settings), Normalize.from_stats(*stats, cuda=False)],
    )
    # A batch larger than the training part would leave nothing, for the incomplete last batch is dropped: BatchNorm fails on one image.
    bs = min(settings.bs, len(table.part("train")))
    dls = block.dataloaders(frame(rows), bs=bs, val_bs=bs, num_workers=workers(settings, device), device=device)
    return dls.to(device)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as the data frame that the DataBlock reads: path, label, is_valid."""
    return pd.DataFrame({"path": [r.path for r in rows], "label": [r.label for r in rows], "is_valid": [r.split == "valid" for r in rows]})


def plain_loader(dls: DataLoaders, rows: Sequence[Row], bs: int) -> TfmdDL:
    """Return a loader over labelled rows in their order, without augmentation."""
    return dls.test_dl(frame(rows), with_labels=True, bs=bs, shuffle=False, drop_last=False)


def augmented_loader(dls: DataLoaders, bs: int) -> TfmdDL:
    """Return a loader over the train part in its order, augmented afresh on every pass."""
    return dls.train.new(shuffle=False, drop_last=False, bs=bs)


def workers(settings: Settings, device: torch.device) -> int:
    """Loader processes: beside a GPU they decode while it trains; on a CPU they would take the cores that train."""
    if settings.workers is not None:
        return settings.workers
    return 0 if device.type == "cpu" else min(8, cores())


def augmentations(settings: Settings) -> list:
    """Return fastai's batch transforms for the settings: geometry and light in one pass, then colour and erasing."""
    if settings.augment == "none":
        return []
    preset = PRESETS[settings.augment]
    rotate = preset["max_rotate"] if settings.rotate is None else settings.rotate
    transforms = aug_transforms(do_flip=settings.flip != "none", flip_vert=settings.flip == "both", **{**preset, "max_rotate": rotate})
    if settings.colour:
        saturation, hue = COLOUR[settings.augment]
        transforms += [Saturation(max_lighting=saturation, p=0.5), Hue(max_hue=hue, p=0.5)]
    return transforms + ([RandomErasing(p=0.25, max_count=1)] if settings.augment == "strong" else [])


class Square(RandTransform):
    """Make an image the square that `images.prepare` makes; in training the crop from `full_size` falls anywhere."""

    split_idx, order = None, 1  # for every part, as fastai's own Resize

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.size, self.full_size, self.policy = settings.size, settings.full_size, settings.resize
        self.place: tuple[int, int] | None = None

    def before_call(self, b, split_idx: int) -> None:
        spare = self.full_size - self.size
        self.place = (random.randint(0, spare), random.randint(0, spare)) if split_idx == 0 and spare else None

    def encodes(self, x: Image.Image) -> PILImage:
        if self.place is None:
            return PILImage(Image.fromarray(images.prepare(x, self.size, self.full_size, self.policy)))
        left, top = self.place
        return PILImage(images.resize(x, self.full_size, self.policy).crop((left, top, left + self.size, top + self.size)))


def _open(path: str) -> PILImage:
    return PILImage(images.open_image(path))


class TensorLoader(DataLoader):
    """Batches of rows of tensors already in memory, taken by index a batch at a time: (`[b, d]` float32, `[b]` class index)."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor, bs: int, shuffle: bool, device: torch.device) -> None:
        self.inputs, self.labels = inputs, labels
        super().__init__(range(len(inputs)), bs=min(bs, len(inputs)), shuffle=shuffle, drop_last=shuffle, num_workers=0, device=device)

    def create_batches(self, samps):
        indices = torch.tensor(list(samps))
        for start in range(0, len(indices), self.bs):
            chosen = indices[start : start + self.bs]
            if len(chosen) == self.bs or not self.drop_last:
                yield self.inputs[chosen].float(), TensorCategory(self.labels[chosen])
