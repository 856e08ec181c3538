"""Counts of the calls in a training step for which the host waits for the device."""

from __future__ import annotations

import sys

from tests.helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
STEPS = {
    "full": ("full", {"augment": "strong", "crop_pct": 0.8, "accumulate": 2, "ema": True, "colour": True, "flip": "both"}),
    "mixup": ("full", {"mixup": 0.4}),
    "depth": ("depth", {"depth": "1", "cache_format": "int8"}),
    "partial": ("partial", {}),
}


def count_waiting_calls(name, images):
    """Return the number of waiting calls per step of a training of `STEPS`, their places, and the device."""
    from bench_measurements import Inputs, measure_syncs

    strategy, settings = STEPS[name]
    return measure_syncs(Inputs(str(images), ""), strategy, {**settings, "bs": 2, "epochs": 60})
