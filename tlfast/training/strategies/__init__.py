"""Ways to fine-tune, one module each: `partial`, `depth` and `full`. Read `base` first.

A strategy lists its phases in order; `trainer.fit`, `tlfast lr-find`, `--dry-run` and `--resume` all follow that list. To add a strategy, add a
module with a class that implements `Strategy`, and assign an instance to `STRATEGY`: `registered_strategies` finds it.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports

if TYPE_CHECKING:
    from ..phase import OpenPhase, PhasePlan
    from .base import Strategy, get_strategy, registered_strategies

__all__ = ["OpenPhase", "PhasePlan", "Strategy", "get_strategy", "registered_strategies"]

if not TYPE_CHECKING:  # with a module __getattr__ a type checker accepts any name
    __getattr__ = lazy_exports(__name__, {"base": ["OpenPhase", "PhasePlan", "Strategy", "get_strategy", "registered_strategies"]})
