"""The protocol of a strategy, and the registry of strategies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol

from torch import nn

from ...core import Settings
from ..phase import OpenPhase, PhasePlan
from ..session import Session
from ..types import DepthPlan, Timing, Work

__all__ = ["OpenPhase", "PhasePlan", "Strategy", "get_strategy", "registered_strategies"]


class Strategy(Protocol):
    """One way to fine-tune.

    The model of a session is `nn.Sequential(body, head)`: `[b, 3, h, w]` -> features `[b, d]` -> logits `[b, c]`.
    """

    name: ClassVar[str]  # in run.json and run ids

    def resolve(self, session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
        """Fill in open settings, such as `--depth auto`. Returns the settings and the depths that were considered."""
        ...

    def phases(self, session: Session, settings: Settings) -> Iterator[PhasePlan]:
        """Yield the phases in order. All work of a phase happens when it is opened, so that resuming skips finished phases."""
        ...

    def find_frozen(self, session: Session, settings: Settings) -> nn.Module | None:
        """Return the layers that run once for each view and whose output is cached; None if there are none, or if they change before they run."""
        ...

    def trainable(self, model: nn.Sequential, settings: Settings) -> list[nn.Module]:
        """Return the modules whose parameters are trained; `--dry-run` counts them."""
        ...

    def estimate(self, timing: Timing, work: Work, settings: Settings) -> DepthPlan:
        """Predict the duration of a training from measured timings."""
        ...


@lru_cache(maxsize=1)
def registered_strategies() -> dict[str, Strategy]:
    """Return every strategy by name: the `STRATEGY` of each module of this package."""
    package = import_module(__package__ or "")
    modules: list[Any] = [import_module(f"{package.__name__}.{info.name}") for info in iter_modules(package.__path__)]
    strategies: list[Strategy] = [module.STRATEGY for module in modules if hasattr(module, "STRATEGY")]
    return {strategy.name: strategy for strategy in strategies}


def get_strategy(name: str) -> Strategy:
    """Return the strategy with this name: "partial", "depth" or "full"."""
    return registered_strategies()[name]
