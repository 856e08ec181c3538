"""Export a fastai learner that opens without tlfast, and open it again."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.transforms import ColReader, ColSplitter, Normalize
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.augment import PadMode, RandomCrop, Resize, ResizeMethod
from fastai.vision.data import ImageBlock
from PIL import Image
from torch import nn

from ..core import RunRecord, UsageError
from ..core.files import convert_write_errors
from ..core.run_files import LEARNER_FILE
from ..data import Preprocessing

METHODS = {"squish": ResizeMethod.Squish, "crop": ResizeMethod.Crop, "pad": ResizeMethod.Pad}


def export_learner(path: Path, model: nn.Module, classes: Sequence[str], preprocessing: Preprocessing) -> None:
    """Write a learner for fastai's `load_learner`. It holds objects of fastai and timm only, so tlfast need not be installed to open it. Raises OSError."""
    with tempfile.TemporaryDirectory() as scratch:
        # building a DataBlock opens one image; `export` discards it
        sample = Path(scratch) / "sample.png"
        Image.new("RGB", (preprocessing.full_size, preprocessing.full_size)).save(sample)
        frame = pd.DataFrame({"path": [str(sample)] * 2, "label": [classes[0]] * 2, "is_valid": [False, True]})
        block = DataBlock(
            blocks=(ImageBlock, CategoryBlock(vocab=list(classes), sort=False)),
            get_x=ColReader("path"),
            get_y=ColReader("label"),
            splitter=ColSplitter("is_valid"),
            item_tfms=build_resize(preprocessing),
            batch_tfms=Normalize.from_stats(preprocessing.mean, preprocessing.std, cuda=False),
        )
        dls = block.dataloaders(frame, bs=1, num_workers=0, device=torch.device("cpu"))
        learn = Learner(dls, model.cpu(), loss_func=CrossEntropyLossFlat(), path=Path(scratch))
        with warnings.catch_warnings(), convert_write_errors(path):
            warnings.simplefilter("ignore")  # fastai warns that a learner is a pickle; so does the README
            learn.export(path.absolute())


def build_resize(preprocessing: Preprocessing) -> list[Any]:
    """Return fastai's transforms equal to `images.prepare`. Outside training RandomCrop is a centre crop."""
    resize = Resize(preprocessing.full_size, method=METHODS[preprocessing.resize], pad_mode=PadMode.Zeros)
    return [resize] if preprocessing.full_size == preprocessing.size else [resize, RandomCrop(preprocessing.size)]


def open_learner(run: RunRecord, trust: bool) -> Learner:
    """Open the fastai learner of a run. It is a pickle, which executes the code in it. Raises UsageError unless `trust` is true."""
    if not trust:
        raise UsageError(
            f"{run.folder / LEARNER_FILE} is a pickle: opening it executes the code in it",
            'Pass trust=True if you trust the source of the run; without backend="fastai" no pickle is opened',
        )
    return load_learner(run.folder / LEARNER_FILE)
