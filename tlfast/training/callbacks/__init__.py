"""fastai callbacks of a training: what happens at an event of the training loop goes here, one concern per module.

To add a callback, write a `fastai.callback.core.Callback` in a module of its own and attach it where it applies: to every phase in
`phase.fit_phase`, to the phases that train the backbone in `requested.build_callbacks`. A callback with `state_dict` and `load_state_dict` is
saved in checkpoints under its class name. Experiment trackers do not belong here: they have a package of their own, `training/trackers/`.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports

if TYPE_CHECKING:
    from .accumulation import AccumulateBatches
    from .early_stopping import KeepEpoch, StopAtNan
    from .ema import MovingAverage
    from .from_settings import build_callbacks
    from .input import NetworkInput
    from .losses import ReadLosses
    from .manual_fit import KeepBatchNorm, KeepHistory, ShareCores
    from .memory import ReleaseMemory
    from .mixup import MixUp
    from .progress import ProgressCallback
    from .resize import GrowingSize
    from .time_budget import KeepToBudget

__all__ = [
    "AccumulateBatches",
    "GrowingSize",
    "KeepBatchNorm",
    "KeepEpoch",
    "KeepHistory",
    "KeepToBudget",
    "MixUp",
    "MovingAverage",
    "NetworkInput",
    "ProgressCallback",
    "ReadLosses",
    "ReleaseMemory",
    "ShareCores",
    "StopAtNan",
    "build_callbacks",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "accumulation": ["AccumulateBatches"],
            "early_stopping": ["KeepEpoch", "StopAtNan"],
            "ema": ["MovingAverage"],
            "from_settings": ["build_callbacks"],
            "input": ["NetworkInput"],
            "losses": ["ReadLosses"],
            "manual_fit": ["KeepBatchNorm", "KeepHistory", "ShareCores"],
            "memory": ["ReleaseMemory"],
            "mixup": ["MixUp"],
            "progress": ["ProgressCallback"],
            "resize": ["GrowingSize"],
            "time_budget": ["KeepToBudget"],
        },
    )
