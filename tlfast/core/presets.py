"""Presets: sets of settings for a purpose, as words of `--preset`. To add a preset, add an entry to `PRESETS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NONE = "none"
DEPTH_SETTINGS = ("depth", "minutes")  # they choose the layers to train


@dataclass(frozen=True)
class Preset:
    """A set of settings.

    Attributes:
        purpose: what it is for, for the documentation.
        settings: values by name.
        is_long: whether the duration of the training is predicted before it starts.
    """

    purpose: str
    settings: Mapping[str, Any]
    is_long: bool = False


PRESETS: Mapping[str, Preset] = {
    "quick": Preset("a first result: training of about two minutes", {"minutes": 2.0}),
    "good": Preset("nearly the accuracy of full fine-tuning, in about half of its time", {"depth": "auto"}),
    "best": Preset(
        "a long training of all layers with strong regularization, hours without a GPU; no gain over `--full` on 3,300 images",
        {"depth": "all", "epochs": 30, "augment": "strong", "mixup": 0.2, "label_smoothing": 0.1},
        is_long=True,
    ),
}
