"""`--depth auto` and `--minutes`: predict the training time of each depth from measured timings, and choose depth, views and epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

from ..core import Note, OnEvent, Settings
from ..core.setting_checks import AUTO_DEPTH, DEPTH_ENDS, strategy_at
from .activations import fit_to_disk
from .budget import Budget
from .durations import closing_seconds
from .profiler import PARTIAL, time_depths
from .session import Session
from .strategies.base import get_strategy
from .types import DepthPlan, DepthsPlanned, Timing, Work

AUTO_SHARE = 0.45  # of the predicted time of full fine-tuning from the first forward pass to the last epoch, the limit of `--depth auto`
NEARLY_ALL, MIN_EPOCHS = 7 / 8, 3 / 8  # shares of the wanted epochs: preferred, and accepted
NOISE = 1.3  # speed ratio of two depths in the wrong order that only other load explains; see docs/benchmarks.md, "Planner"
TIMING = 0.1  # share of `--minutes` after which no other round of timing begins
FORECAST = 10.0  # seconds after which no other round of timing begins for a forecast


def resolve_depth(session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
    """Choose depth, views and epochs where the settings leave them open; return the settings and the plans that were considered.

    A resumed training repeats its choices. Raises UsageError if the backbone cannot be divided, or if there is no room for the activations.
    """
    plans: list[DepthPlan] = []
    journal = session.journal
    if settings.depth == AUTO_DEPTH or settings.minutes is not None:
        requested = settings

        def choose() -> dict[str, Any]:
            found, budget = plan_depths(session, requested)
            return {"choices": [asdict(plan) for plan in found], "budget": asdict(budget) if budget else None}

        plans = [DepthPlan(**values) for values in journal.once("planned", choose)["choices"]]
        session.on_event(DepthsPlanned("depth", plans))
        settings = _apply_plan(settings, next(plan for plan in plans if plan.chosen))
    if settings.depth.isdigit() and settings.depth not in DEPTH_ENDS:
        wanted = settings
        depth, views = journal.once("room", lambda: fit_to_disk(session, wanted))
        settings = replace(settings, depth=depth, views=views)
        if settings != wanted:
            problem = f"the activations of --depth {wanted.depth} with {wanted.views} views need more room than there is"
            session.on_event(Note("depth", f"{problem}: using --depth {depth} and {views} views"))
    return settings, plans


def plan_depths(session: Session, settings: Settings) -> tuple[list[DepthPlan], Budget | None]:
    """Return the plan of each depth, the shallowest first, one of them chosen.

    With `settings.minutes`, each plan has as many views and epochs as fit the time, at most those of the settings, and the budget of the last phase is
    returned too. Without, the plans have the views and epochs of the settings.
    """
    on_event, work = session.on_event, _measure_work(session, settings, TIMING * 60 * (settings.minutes or math.inf))
    costs = work.costs
    if settings.minutes is None:
        plans = [_predict_plan(timing, work, settings) for timing in costs.depths]
        fixed = work.elapsed + closing_seconds(work)  # the same for all depths
        limit = fixed + AUTO_SHARE * (plans[-1].seconds - fixed)
    else:
        limit = 60 * settings.minutes
        plans = [_fit_to_time(timing, work, settings, limit) for timing in costs.depths]
    _warn_of_noise(plans, on_event)
    allowed = [i for i, plan in enumerate(plans) if not settings.depth.isdigit() or plan.depth == settings.depth]
    fitting = [i for i in allowed if plans[i].epochs and plans[i].seconds <= limit]
    best = _choose_depth(plans, fitting, settings.epochs) if fitting else allowed[0]
    if not fitting:
        plans[best] = _plan_minimum(costs.depths[best], work, settings, limit, on_event)
    if plans[best].seconds > plans[-1].seconds and plans[-1].epochs >= plans[best].epochs:
        _say_full_is_faster(plans[best], plans[-1], on_event)
    budget = (
        Budget(limit, work.valid * costs.depths[best].upper / settings.gpus, closing_seconds(work), work.train, _most_epochs(settings))
        if settings.minutes
        else None
    )
    return [replace(plan, chosen=i == best) for i, plan in enumerate(plans)], budget


def _measure_work(session: Session, settings: Settings, time_limit: float) -> Work:
    """Time the depths as `time_depths` does, and return the amount of work."""
    elapsed, started = session.journal.seconds, time.perf_counter()
    costs = time_depths(session, settings, time_limit)
    train, valid = (len(session.table.part(split)) for split in ("train", "valid"))
    return Work(train, valid, costs, elapsed + time.perf_counter() - started)


def forecast(session: Session, settings: Settings) -> DepthPlan:
    """Predict the time of a training with settled settings, by timing its steps. A resumed training has its first forecast."""

    def predict() -> dict[str, Any]:
        work = _measure_work(session, settings, FORECAST)
        timing = next(timing for timing in work.costs.depths if timing.depth == (settings.depth or PARTIAL))
        return asdict(replace(_predict_plan(timing, work, settings), chosen=True))

    return DepthPlan(**session.journal.once("forecast", predict))


def _plan_minimum(timing: Timing, work: Work, settings: Settings, limit: float, on_event: OnEvent) -> DepthPlan:
    """Return the smallest plan when none fits into `limit` seconds, and report its duration; without `--minutes` that with all views."""
    if settings.minutes is None:
        on_event(Note("depth", f"no depth takes less than {AUTO_SHARE:.0%} of the time of all layers: training the classifier only"))
        return _predict_plan(timing, work, settings)
    fixed = settings.depth.isdigit()
    plan = _predict_plan(timing, work, replace(settings, views=1, epochs=1 if fixed else settings.epochs))
    none, smallest = (
        (f"--depth {settings.depth} does not fit", f"one epoch of --depth {settings.depth}") if fixed else ("no depth fits", "the classifier alone")
    )
    on_event(Note("depth", f"{none} into {limit / 60:.1f} minutes; {smallest} takes {plan.seconds / 60:.1f}"))
    return plan


def _say_full_is_faster(plan: DepthPlan, full: DepthPlan, on_event: OnEvent) -> None:
    """Report that training all layers takes less time, as on a GPU that computes the lower stages faster than it reads their activations."""
    advice = f"--full trains all layers in {full.seconds / 60:.1f} minutes, --depth {plan.depth} takes {plan.seconds / 60:.1f}"
    on_event(Note("depth", f"{advice}: on this device all layers train as fast as the upper stages from cached activations"))


def _warn_of_noise(plans: Sequence[DepthPlan], on_event: OnEvent) -> None:
    """Report a depth whose steps are slower than those of a greater depth."""
    for less, more in pairwise(plans[1:]):  # steps of the head are on features
        if less.images_per_second * NOISE < more.images_per_second:
            speeds = f"depth {less.depth} {less.images_per_second:,.0f} images/s, depth {more.depth} {more.images_per_second:,.0f}"
            on_event(Note("depth", f"the timings contradict each other ({speeds}): if other programs are running, the plan is unreliable"))
            return


def _choose_depth(plans: Sequence[DepthPlan], fitting: Sequence[int], epochs: int) -> int:
    """Return the index of the chosen depth among `fitting`.

    Of the deeper half of all depths: the deepest with nearly all its epochs, else the shallowest. If none of this half fits, the deepest that fits. Above
    the middle epochs matter more than stages, below it the reverse; see docs/benchmarks.md, "Planner".
    """
    upper = [i for i in fitting if 2 * i >= len(plans) - 1]
    complete = [i for i in upper if plans[i].epochs >= NEARLY_ALL * epochs]
    return max(complete or upper[:1] or fitting)


def _apply_plan(settings: Settings, plan: DepthPlan) -> Settings:
    """Return the settings of a plan, as if its depth, views and epochs had been typed. The head alone is trained by one process."""
    internals, gpus = replace(settings.internals, most_epochs=None), 1 if plan.depth == PARTIAL else settings.gpus
    return replace(settings, depth=plan.depth, views=plan.views, epochs=plan.epochs, minutes=None, gpus=gpus, internals=internals)


# Prediction of plans


def _fit_to_time(timing: Timing, work: Work, settings: Settings, limit: float) -> DepthPlan:
    """Return the plan of a depth within `limit` seconds.

    It has the most views that leave time for nearly all epochs, else one view. With fewer than MIN_EPOCHS of the epochs, `epochs` is 0.
    """
    affordable_epochs = {}
    for views in sorted({settings.views, min(2, settings.views), 1}, reverse=True):
        one, two = (_predict_plan(timing, work, replace(settings, views=views, epochs=epochs)) for epochs in (1, 2))
        spare, epoch = limit - one.seconds, two.seconds - one.seconds
        epochs = 1 + math.floor(spare / epoch) if epoch else settings.epochs * (spare >= 0)  # the head's number of epochs is fixed
        affordable_epochs[views] = min(epochs, _most_epochs(settings))
    views = max((views for views, epochs in affordable_epochs.items() if epochs >= NEARLY_ALL * settings.epochs), default=1)
    if affordable_epochs[views] >= max(1, MIN_EPOCHS * settings.epochs):
        return _predict_plan(timing, work, replace(settings, views=views, epochs=affordable_epochs[views]))
    return replace(_predict_plan(timing, work, replace(settings, views=1, epochs=math.ceil(MIN_EPOCHS * settings.epochs))), epochs=0)


def _most_epochs(settings: Settings) -> int:
    return settings.internals.most_epochs or settings.epochs


def _predict_plan(timing: Timing, work: Work, settings: Settings) -> DepthPlan:
    """Predict a training to a depth, with the views and epochs of the settings."""
    return get_strategy(strategy_at(timing.depth)).estimate(timing, work, settings)
