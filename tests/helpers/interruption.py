"""Trainings that are stopped at one of their events."""

from __future__ import annotations

import signal

from tlfast import tasks
from tlfast.commands import train
from tlfast.core.events import Note
from tlfast.tasks.resolve import resolve_settings

# The number format is said, for which is the faster on so small a network is a matter of chance.
SMALL = {"arch": "test_resnet", "weights": "none", "size": 32, "bs": 8, "lr": "3e-3", "amp": "off", "onnx": False}


WAYS = {
    "partial": {"strategy": "partial", "epochs": 3},
    "head and BatchNorm": {"strategy": "partial", "epochs": 2, "train_bn": True},
    "depth": {"strategy": "depth", "depth": "2", "epochs": 3, "freeze_epochs": 2, "views": 3, "mixup": 0.4, "lr": "auto"},
    "full": {"strategy": "full", "epochs": 3, "freeze_epochs": 2, "lr": "auto"},
    "full with everything": {
        "strategy": "full",
        "epochs": 3,
        "freeze_epochs": 1,
        "mixup": 0.4,
        "ema": True,
        "accumulate": 3,
        "sizes": "24",
        "patience": 2,
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "metric": "macro_f1",
        "store": "off",
    },
}


def settings_of(way, pictures, out, **more):
    values = {**SMALL, **WAYS[way], **more}
    return resolve_settings(tasks.folder_task(pictures), values.pop("strategy"), {**values, "data": str(pictures), "out": str(out)})


def train_way(way, pictures, out, on_event=lambda event: None, resume="", **more):
    """Train in one of the ways of `WAYS`."""
    return train.train_run(tasks.folder_task(pictures), settings_of(way, pictures, out, **more), on_event, resume)


def stopping_at(phase, count):
    """Return a listener that presses Ctrl-C at an event of a phase, counted from 1."""
    seen = []

    def listen(event):
        if event.phase == phase and not isinstance(event, Note):
            seen.append(event)
            if len(seen) == count:
                signal.raise_signal(signal.SIGINT)

    return listen


class Killed(BaseException):
    """As a kill: nothing that is there to tidy up after it knows of it."""
