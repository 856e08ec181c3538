"""Trainings through the Python functions, without the command line."""

from __future__ import annotations

import torch

from tlfast import tasks
from tlfast.tasks import resolve
from tlfast.training import trainer

# The smallest network that trains: settings.
TINY = {"arch": "test_resnet", "weights": "none", "size": 32, "bs": 8, "epochs": 2, "freeze_epochs": 1, "lr": "3e-3"}


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
