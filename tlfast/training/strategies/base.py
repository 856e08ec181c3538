"""The protocol of a strategy, and the registry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Protocol

from torch import nn

from ...core.settings import Settings
from ..phase import PhasePlan
from ..session import Session
from ..types import DepthPlan, Timing, Work


class Strategy(Protocol):
    """One way to fine-tune."""

    name: ClassVar[str]  # in run.json and run ids

    def resolve(self, session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
        """Fill in open choices, such as the depth. Returns the settings and the depths that were considered."""
        ...

    def phases(self, session: Session, settings: Settings) -> Iterator[PhasePlan]:
        """Yield the phases in order. A phase does its work when it is opened: one that was finished before an interruption is not opened."""
        ...

    def trainable(self, model: nn.Sequential, settings: Settings) -> list[nn.Module]:
        """Return the modules whose parameters are trained."""
        ...

    def estimate(self, timing: Timing, work: Work, settings: Settings) -> DepthPlan:
        """Predict the duration of a training from measured timings."""
        ...


@lru_cache(maxsize=1)
def registered_strategies() -> dict[str, Strategy]:
    """Return every strategy by name: each module of this package that defines `STRATEGY`."""
    package = import_module(__package__ or "")
    modules: list[Any] = [import_module(f"{package.__name__}.{info.name}") for info in iter_modules(package.__path__)]
    found = [module.STRATEGY for module in modules if hasattr(module, "STRATEGY")]
    return {strategy.name: strategy for strategy in found}


def get_strategy(name: str) -> Strategy:
    """Return the strategy of a name: partial, depth or full."""
    return registered_strategies()[name]
