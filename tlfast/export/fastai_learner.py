"""Export a fastai learner that opens without tlfast, and open it again."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

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

from ..core.errors import UsageError
from ..core.files import convert_write_errors
from ..core.runs import Run
from ..data.types import Preprocessing

LEARNER = "learner.pkl"
METHODS = {"squish": ResizeMethod.Squish, "crop": ResizeMethod.Crop, "pad": ResizeMethod.Pad}


def export_learner(path: Path, model: nn.Module, classes: Sequence[str], preprocessing: Preprocessing) -> None:
    """Write a learner that fastai's `load_learner` opens where tlfast is not installed: it holds fastai's and timm's objects only."""
    with tempfile.TemporaryDirectory() as scratch:
        # A DataBlock opens one image when it is built; this one is thrown away again by `export`.
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
            warnings.simplefilter("ignore")  # fastai warns that a learner is a pickle; the README says so
            learn.export(path.absolute())


def build_resize(preprocessing: Preprocessing) -> list:
    """Return fastai's own transforms that do what `images.prepare` does; its RandomCrop takes the centre outside training."""
    resize = Resize(preprocessing.full_size, method=METHODS[preprocessing.resize], pad_mode=PadMode.Zeros)
    return [resize] if preprocessing.full_size == preprocessing.size else [resize, RandomCrop(preprocessing.size)]


def open_learner(run: Run, trust: bool) -> Learner:
    """Open a run's fastai learner, which is a pickle: whatever code is in it runs. Raises UsageError unless it is trusted."""
    if not trust:
        raise UsageError(
            f"{run.folder / LEARNER} is a pickle: to open it is to run whatever code is in it",
            "Pass trust=True if the run comes from you or someone you trust; without backend= no pickle is opened",
        )
    return load_learner(run.folder / LEARNER)
