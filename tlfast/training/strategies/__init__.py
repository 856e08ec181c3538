"""Ways to fine-tune, one file each: `partial`, `depth` and `full`.

Each describes its phases in order; `trainer.fit`, `lr-find`, `--dry-run` and resuming walk the same list. Read `base` first. A new strategy is a
module here that defines `STRATEGY`.
"""

from ..phase import OpenPhase, PhasePlan
from .base import Strategy, get_strategy, registered_strategies

__all__ = ["OpenPhase", "PhasePlan", "Strategy", "get_strategy", "registered_strategies"]
