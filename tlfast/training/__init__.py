"""Training: sessions, phases, strategies, cached features, checkpoints and the choice of a depth.

May import every package below `commands`. Read `session` and `trainer` first, then `strategies/base` and `phase`.
`types` and the package itself import no torch; the package imports the module of a public name when the name is used.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

if TYPE_CHECKING:
    from .phase import OpenPhase, PhasePlan
    from .session import Session
    from .strategies import Strategy, get_strategy, registered_strategies
    from .trainer import fit, predict_valid, prepare
    from .types import DepthPlan, DepthsPlanned, EpochEnd, EpochRow, FeaturePass, Phase, RateCurve, StepEnd

__all__ = [
    "DepthPlan",
    "DepthsPlanned",
    "EpochEnd",
    "EpochRow",
    "FeaturePass",
    "OpenPhase",
    "Phase",
    "PhasePlan",
    "RateCurve",
    "Session",
    "StepEnd",
    "Strategy",
    "fit",
    "get_strategy",
    "predict_valid",
    "prepare",
    "registered_strategies",
]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(
        __name__,
        {
            "phase": ["OpenPhase", "PhasePlan"],
            "session": ["Session"],
            "strategies": ["Strategy", "get_strategy", "registered_strategies"],
            "trainer": ["fit", "predict_valid", "prepare"],
            "types": ["DepthPlan", "DepthsPlanned", "EpochEnd", "EpochRow", "FeaturePass", "Phase", "RateCurve", "StepEnd"],
        },
    )
