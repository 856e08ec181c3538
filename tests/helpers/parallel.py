"""Fits of small networks by one or several processes: `python -m tests.helpers.parallel FOLDER` in each process, or `fit_all` in this one."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import SGD
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.functional import cross_entropy

from tlfast.core import Settings, UsageError
from tlfast.core.system import hide_known_warnings
from tlfast.training import processes
from tlfast.training.callbacks.early_stopping import StopAtNan
from tlfast.training.data_parallel import open_data_parallel
from tlfast.training.lr_finder import RateRule, find_rate
from tlfast.training.recording import epoch_metrics, record_on_device

IMAGES, VALID, WHOLE_BATCH, STEPS = 640, 101, 64, 20


def build_network(norm: str) -> nn.Sequential:
    """Return a small convolutional network: without normalization, or with BatchNorm of torch and of timm."""
    torch.manual_seed(0)
    first, second = {"": (nn.Identity(), nn.ReLU()), "batchnorm": (nn.BatchNorm2d(8), BatchNormAct2d(8, act_layer=nn.SiLU))}[norm]
    body = nn.Sequential(nn.Conv2d(3, 8, 3), first, nn.Conv2d(8, 8, 3), second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(body, nn.Linear(8, 3))


class Record(Callback):
    """The indices of the images of each epoch, in this process."""

    def before_fit(self) -> None:
        self.trained, self.validated = [], []

    def after_batch(self) -> None:
        (self.trained if self.training else self.validated).extend(self.learn.xb[0][:, 0, 0, 0].mul(10_000).round().int().tolist())


def build_learner(norm: str = "", spoiled: int | None = None) -> Learner:
    """Return a Learner of random images, each of which holds its index in a pixel. `spoiled` is an image with a pixel that is not a number."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(IMAGES + VALID, 3, 12, 12, generator=generator) + 2
    x[:, 0, 0, 0] = torch.arange(len(x)) / 10_000
    y = torch.randint(3, (len(x),), generator=generator)
    if spoiled is not None:
        x[spoiled, 1, 0, 0] = math.nan
    items = [(x[i], y[i]) for i in range(len(x))]
    bs = WHOLE_BATCH // processes.world_size()
    loaders = DataLoaders(DataLoader(items[:IMAGES], bs=bs, shuffle=True, drop_last=True), DataLoader(items[IMAGES:], bs=32), device=torch.device("cpu"))
    loaders.train.rng = random.Random(0)
    learn = Learner(loaders, build_network(norm), loss_func=lambda p, t: cross_entropy(p, t), opt_func=SGD, metrics=epoch_metrics())
    return record_on_device(learn)


def fit_all() -> dict[str, Any]:
    """Fit small networks and return what they became: the same in any number of processes."""
    found: dict[str, Any] = {}
    for name, norm, sync in (("plain", "", False), ("synchronized", "batchnorm", True), ("separate", "batchnorm", False)):
        learn, record = build_learner(norm), Record()
        with open_data_parallel(learn, sync), learn.no_bar(), learn.no_logging():
            learn.fit(STEPS * WHOLE_BATCH // IMAGES, lr=0.05, cbs=record)
        seen = processes.gather((record.trained[len(record.trained) // 2 :], record.validated[len(record.validated) // 2 :]))  # of the second epoch
        values = [[float(value) for value in row] for row in learn.recorder.values]
        found[name] = {"state": learn.model.state_dict(), "values": processes.gather(values), "seen": seen}
    learn = build_learner()
    with open_data_parallel(learn):
        curve = find_rate(learn, "phase", 5, RateRule(2e-3), "auto", lambda event: None)
    found["curves"] = processes.gather(curve)
    learn, stop = build_learner(spoiled=3), StopAtNan()
    with open_data_parallel(learn), learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.05, cbs=stop)
    found["stops"] = processes.gather(stop.step)
    learn = build_learner()
    learn.dls.train.bs = IMAGES
    with open_data_parallel(learn):
        inside = len(learn.dls.train), learn.dls.train.bs
    found["limited"] = (*inside, learn.dls.train.bs)
    learn.dls.train.n = 3
    try:
        with open_data_parallel(learn):
            found["too few"] = ""
    except UsageError as error:
        found["too few"] = error.message
    found["flags"] = processes.any_of(processes.rank() == 1, False), processes.broadcast(processes.rank()), processes.gather(processes.rank())
    return found


def main(folder: Path) -> None:
    """Fit in one of several processes; the first one writes the result."""
    hide_known_warnings()
    with processes.join(Settings(task="parallel", device="cpu")):
        found = fit_all()
        if not processes.rank():
            torch.save(found, folder / "found.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
