"""Experiment trackers, one module each: `tensorboard`, `mlflow`, `wandb` and `trackio`. Read `base` first, then `tracking`.

A tracker runs in a process of its own (`worker`), so that its imports, threads, random numbers, signal handlers and output have no part in the
training. `process` feeds it through a bounded queue. To add a tracker, add a module with a class that implements `Tracker`, and assign the class to
`TRACKER`: `registered_trackers` finds it. Other packages register a class under the entry point group `tlfast.trackers`.

This package imports no torch, and no package of a tracker outside of its process.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports

if TYPE_CHECKING:
    from .base import RunInfo, Tracker
    from .registry import parse_names, registered_trackers
    from .tracking import Tracking, open_tracking

__all__ = ["RunInfo", "Tracker", "Tracking", "open_tracking", "parse_names", "registered_trackers"]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "base": ["RunInfo", "Tracker"],
            "registry": ["parse_names", "registered_trackers"],
            "tracking": ["Tracking", "open_tracking"],
        },
    )
