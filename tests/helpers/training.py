"""Trainings through the Python functions, without the command line."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from tlfast import tasks, testing
from tlfast.tasks import resolve
from tlfast.training import planner, trainer

TINY = {**testing.TINY, "epochs": 2, "freeze_epochs": 1}


def resolved(folder, strategy, **flags):
    """Return the task of a folder of images, and settings of a tiny training on it."""
    task = tasks.folder_task(folder)
    return task, resolve.resolve_settings(task, strategy, {**TINY, "data": str(folder), **flags})


def weights_before_and_after(folder, strategy, **flags):
    """Train; return the names of all weights that changed, and of those of the body and of the head."""
    task, chosen = resolved(folder, strategy, **flags)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        body, head = session.learn.model
        before = {name: value.clone() for name, value in session.learn.model.state_dict().items()}
        trainer.fit(session, chosen)
        after = session.learn.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    return changed, {f"0.{name}" for name in body.state_dict()}, {f"1.{name}" for name in head.state_dict()}


class BatchRecorder(Callback):
    """Notes the size of each training and validation batch, and the precision of the network's first layer."""

    order = 5

    def __init__(self) -> None:
        self.sizes, self.formats, self.kinds = {True: [], False: []}, [], set()

    def before_fit(self) -> None:
        first = next(module for module in self.learn.model.modules() if isinstance(module, torch.nn.Conv2d))
        self.hook = first.register_forward_hook(lambda module, given, output: self.noted(given[0], output))

    def noted(self, x, output) -> None:
        self.sizes[self.training].append(x.shape[-1])
        self.formats.append(output.dtype)
        self.kinds.add((type(x), x.is_contiguous(memory_format=torch.channels_last)))

    def after_fit(self) -> None:
        self.hook.remove()


def watched(folder, **flags):
    """Train; return the recorder of the batches, and the last phase."""
    task, chosen = resolved(folder, flags.pop("strategy", "full"), **{"epochs": 3, **flags})
    with trainer.prepare(task, chosen, lambda event: None) as session:
        seen = BatchRecorder()
        session.learn.add_cb(seen)
        phases, _ = trainer.fit(session, chosen)
    return seen, phases[-1]


SHORT = {"epochs": 2, "freeze_epochs": 1, "onnx": False}


def train_depth(folder, on_event=lambda event: None, **flags):
    """Train in memory; return the network's weights and the phases."""
    task, chosen = resolved(folder, "depth", **{**SHORT, **flags})
    with trainer.prepare(task, chosen, on_event) as session:
        chosen, _ = planner.resolve_depth(session, chosen)
        phases, _ = trainer.fit(session, chosen)
        return {name: value.clone() for name, value in session.learn.model.state_dict().items()}, phases
