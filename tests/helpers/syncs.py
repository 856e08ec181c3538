"""Counts of the calls in a training step for which the host waits for the device."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.paths import ROOT

STEPS = {
    "full": ("full", {"augment": "strong", "crop_pct": 0.8, "accumulate": 2, "ema": True, "colour": True, "flip": "both"}),
    "mixup": ("full", {"mixup": 0.4}),
    "depth": ("depth", {"depth": "1", "cache_format": "int8"}),
    "partial": ("partial", {}),
}


def count_waiting_calls(name, images):
    """Return the number of waiting calls per step of a training of `STEPS`, their places, and the device."""
    strategy, settings = STEPS[name]
    given = {"images": str(images), "weights": "", "strategy": strategy, "settings": {**settings, "bs": 2, "epochs": 60}}
    command = [sys.executable, str(ROOT / "scripts" / "bench_measurements.py"), "syncs", json.dumps(given)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
