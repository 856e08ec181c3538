"""`tlfast lr-find`: the learning-rate finder for each phase of a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..core import Note, OnEvent, Settings, ignore_event, runs
from ..core.setting_fields import Role
from ..core.settings import find_unused, names_with
from ..data import Task
from ..training import RateCurve, Session, get_strategy, prepare
from ..training.phase import search_rate
from ..training.plots import plot_rate_curve
from ..training.processes import require_single
from ..training.trainer import fit_within_memory, run_within_memory
from .setting_notes import note_unused


@dataclass(frozen=True)
class RatesResult:
    """Result of `tlfast lr-find`.

    Attributes:
        curves: name of a phase -> its curve of losses, with the suggested learning rate and that of `train`.
        pictures: name of a phase -> file with the plot of its curve.
    """

    curves: dict[str, RateCurve]
    pictures: dict[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """Return the suggestion, the rate of `train` and the picture of each phase as JSON types."""
        facts = {phase: {"suggestion": curve.suggestion, "rate": curve.rate} for phase, curve in self.curves.items()}
        return {phase: {**values, "picture": str(self.pictures[phase])} for phase, values in facts.items()}


def find_rates(task: Task, settings: Settings, on_event: OnEvent = ignore_event) -> RatesResult:
    """Run the learning-rate finder for each phase and plot the curves into `<out>/<task>/`.

    All phases but the last are trained, as `train` does it, because the search for a phase starts from the network of the phase before.
    Raises TlfastError.
    """
    require_single(settings, "lr-find")
    note_unused(find_unused(settings, names_with(Role.OUTPUT)), on_event)  # outputs are those of a run
    if settings.rate:
        on_event(Note("learning rate", f"--lr {settings.lr} is not used: the rates of train are those of --lr {Settings.lr}"))
        settings = replace(settings, lr=Settings.lr)  # with a fixed rate, phases skip the search
    runs.check_writable(settings.out, settings.task, "")
    stamp, curves, pictures = f"{datetime.now():%Y%m%d-%H%M%S}", {}, {}
    with prepare(task, settings, on_event) as session:
        settings, _ = get_strategy(settings.strategy).resolve(session, settings)
        for phase, curve in list(_search_phases(session, settings)):  # no picture if a later phase fails
            path = Path(settings.out) / settings.task / f"lr-find-{stamp}-{phase.replace(' ', '-')}.png"
            curves[phase] = curve
            pictures[phase] = plot_rate_curve(curve, path, f"{settings.task}: learning-rate finder, {phase}")
    return RatesResult(curves, pictures)


def _search_phases(session: Session, settings: Settings) -> Iterator[tuple[str, RateCurve]]:
    """Yield the name and the curve of each phase that has one."""
    *first_plans, last_plan = get_strategy(settings.strategy).phases(session, settings)
    before = None
    for plan in first_plans:
        before, _ = fit_within_memory(session, plan, settings, before)
        if before.curve:
            yield plan.name, before.curve
    yield last_plan.name, run_within_memory(session, last_plan, settings, lambda opened, attempt: search_rate(session, last_plan, opened, attempt))
