"""The place of this process among those that torchrun has started."""

from __future__ import annotations

import os

RUN_ID = "TORCHELASTIC_RUN_ID"  # set by torchrun; other programs set RANK and WORLD_SIZE too


def is_started_by_torchrun() -> bool:
    """Return whether torchrun started this process as one of several."""
    return RUN_ID in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def rank() -> int:
    """Return the rank of this process, 0 without torchrun. The first process, 0, writes files and results.

    Not for use within the block of `training.processes.join`, which hides the variables from fastai: there `training.processes.rank` is right.
    """
    return int(os.environ.get("RANK", 0)) if is_started_by_torchrun() else 0


def must_start_processes(gpus: int) -> bool:
    """Return whether a training with `--gpus` has yet to start its processes."""
    return gpus > 1 and not is_started_by_torchrun()
