"""One fit by several processes: each trains on its share of every batch, and the gradients are averaged by torch's DistributedDataParallel.

fastai's `distrib_ctx` is not used: it runs only on GPUs, its `lr_find` hangs, and its validation changes the order of the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.data.load import DataLoader
from fastai.learner import Learner
from torch.nn.parallel import DistributedDataParallel

from ..core import UsageError
from . import processes
from .recording import EpochMetric
from .sync_batchnorm import synchronize_batchnorm
from .types import MIN_BATCH


@contextmanager
def open_data_parallel(learn: Learner, sync_bn: bool = False) -> Iterator[None]:
    """Within the block, all processes fit a Learner together; with one process nothing changes. All must call the same methods.

    The batch size of the training loader is that of a process, limited to its share of the images. Raises UsageError for less than MIN_BATCH images.
    """
    if processes.world_size() == 1:
        yield
        return
    model = learn.model
    with ExitStack() as stack:
        stack.enter_context(_divide_loader(learn.dls.train))
        stack.enter_context(_divide_loader(learn.dls.valid))
        if sync_bn:
            stack.enter_context(synchronize_batchnorm(model))
        stack.enter_context(learn.added_cbs([DataParallel(), MergeValidation()]))
        try:
            yield
        finally:
            learn.model = model  # a forward pass that failed leaves its wrapper


def count_processes(learn: Any) -> int:
    """Return the number of processes that fit a Learner together."""
    return processes.world_size() if hasattr(learn, "data_parallel") else 1


def choose_indices(indices: Sequence[int], bs: int, drop_last: bool, index: int, count: int) -> list[int]:
    """Return the share of one of `count` processes in the indices of an epoch.

    In training, the k-th batches of all processes together are the k-th batch of one process with `count * bs` images.
    In validation, the shares differ by one index at most.

    >>> choose_indices(range(10), bs=2, drop_last=True, index=1, count=2)
    [2, 3, 6, 7]
    >>> choose_indices(range(5), bs=2, drop_last=False, index=1, count=2)
    [1, 3]
    """
    if not drop_last:
        return list(indices[index::count])
    steps = len(indices) // (bs * count)
    return [i for step in range(steps) for i in indices[(step * count + index) * bs :][:bs]]


@contextmanager
def _divide_loader(loader: DataLoader) -> Iterator[None]:
    """Within the block, a loader yields the share of this process. The processes shuffle alike, because their loaders have the same generator."""
    whole, given = loader.n, loader.bs
    bs = min(given, whole // processes.world_size()) if loader.drop_last else given  # as one process limits it to the images
    if loader.drop_last and bs < MIN_BATCH:
        least = MIN_BATCH * processes.world_size()
        raise UsageError(f"{processes.world_size()} processes need {least} training images, there are {whole}", "Use fewer --gpus")

    def choose() -> list[int]:
        indices = list(range(whole))
        indices = loader.shuffle_fn(indices) if loader.shuffle else indices
        return choose_indices(indices, bs, loader.drop_last, processes.rank(), processes.world_size())

    loader.get_idxs, loader.bs = choose, bs
    loader.n = len(choose_indices(range(whole), bs, loader.drop_last, processes.rank(), processes.world_size()))
    try:
        yield
    finally:
        del loader.get_idxs
        loader.n, loader.bs = whole, given


class DataParallel(Callback):
    """Run the forward passes of training through DistributedDataParallel, average losses, and validate with the BatchNorm statistics of one process.

    The Learner's model is wrapped only during these passes, so that checkpoints and exports hold the names of the model itself. All processes record
    the same loss, so that they all stop at a loss that is not finite, and the learning-rate finder ends at the same step.
    """

    order = 99  # after callbacks that change a batch, or put averaged weights in place for validation

    def before_fit(self) -> None:
        device = next(self.learn.model.parameters()).device
        self.plain, devices = self.learn.model, [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)  # its new name is not in all supported versions
            # A static graph also supports networks with unused parameters.
            self.wrapped = DistributedDataParallel(self.plain, device_ids=devices, broadcast_buffers=False, static_graph=True)

    def before_batch(self) -> None:
        if self.training:
            self.learn.model = self.wrapped

    def after_pred(self) -> None:
        self.learn.model = self.plain

    def after_loss(self) -> None:
        if self.training:
            self.learn.loss = processes.mean(self.learn.loss.as_subclass(torch.Tensor))

    def before_validate(self) -> None:
        processes.broadcast_tensors(self.learn.model.buffers())

    def after_fit(self) -> None:
        del self.wrapped, self.plain


class MergeValidation(Callback):
    """After the validation of an epoch, sum the losses and the counts of all processes, so that all record the same metrics."""

    order = 45  # before Recorder, which reads them

    def after_validate(self) -> None:
        loss = self.recorder.loss
        counts = next((metric.counts for metric in self.recorder.metrics if isinstance(metric, EpochMetric)), None)
        by_class = counts.by_class if counts else None
        found = processes.gather((float(loss.total), loss.count, None if by_class is None else by_class.cpu()))
        loss.total, loss.count = torch.tensor(sum(total for total, _, _ in found)), sum(count for _, count, _ in found)
        parts = [part for _, _, part in found if part is not None]
        if counts and parts:
            counts.by_class = torch.stack(parts).sum(dim=0)
