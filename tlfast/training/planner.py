"""`--depth auto` and `--minutes`: each depth is timed on this machine, its training predicted, and the deepest that pays or fits is taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from ..core.events import Note, OnEvent
from ..core.journal import Journal
from ..core.settings import DEPTH_ENDS, Settings
from .activations import fit_to_disk
from .head import choose_head_batch
from .lr_finder import FINDER_STEPS
from .profiler import time_depths
from .session import Session
from .strategies import get_strategy
from .types import DepthPlan, DepthsPlanned, Timing, Work

AUTO_SHARE = 0.45  # of full fine-tuning's time, that `--depth auto` may take
NEARLY_ALL, LEAST = 7 / 8, 3 / 8  # of the epochs that were to be
NOISE = 1.3  # times the speed of a depth that trains more: so far off no quiet machine's timings are
TIMING = 0.1  # of the minutes, after which no other round of timing begins
LATE = 0.05  # of the minutes: so much later may end what ends nearer to them than an epoch less would
CLOSING = 10.0  # seconds of export, plots and files at the end of a training
PLANNED = "planned"  # in the journal


@dataclass(frozen=True)
class Budget:
    """What `--minutes` leaves the last phase: seconds in all, of judging after each epoch, and after the last; images of an epoch, epochs at most."""

    ends: float
    judging: float
    closing: float
    images: int
    most: int


def settle_depth(session: Session, settings: Settings) -> tuple[Settings, list[DepthPlan]]:
    """Choose depth, views and epochs where they are open; returns the settings and the depths that were considered.

    Choices of an interrupted training are kept. Raises UsageError if the backbone cannot be divided, or if there is no room for the activations.
    """
    plans: list[DepthPlan] = []
    journal = session.journal
    if settings.depth == "auto" or settings.minutes is not None:
        asked = settings

        def choose() -> dict[str, Any]:
            found, budget = plan_depths(session, asked)
            return {"choices": [asdict(choice) for choice in found], "budget": asdict(budget) if budget else None}

        plans = [DepthPlan(**values) for values in journal.once(PLANNED, choose)["choices"]]
        session.on_event(DepthsPlanned("depth", plans))
        settings = _apply_plan(settings, next(choice for choice in plans if choice.chosen))
    if settings.depth.isdigit() and settings.depth not in DEPTH_ENDS:
        wanted = settings
        depth, views = journal.once("room", lambda: fit_to_disk(session, wanted))
        settings = replace(settings, depth=depth, views=views)
        if settings != wanted:
            found = f"the activations of --depth {wanted.depth} with {wanted.views} views need more room than there is"
            session.on_event(Note("depth", f"{found}: using --depth {depth} and {views} views"))
    return settings, plans


def make_epoch_budget(journal: Journal) -> Callable[[float], int] | None:
    """Return a function from seconds per image to the number of epochs that fit the time budget; None without `--minutes`.

    The plan was made minutes ago from a few steps on noise; the steps of the learning-rate finder are those of the training itself.
    """
    found = (journal.facts.planned or {}).get("budget")
    if not found:
        return None
    budget = Budget(**found)

    def epochs(step: float) -> int:
        left, epoch = budget.ends - journal.seconds - budget.closing, budget.images * step + budget.judging
        count = round(left / epoch)
        late = count * epoch - left > LATE * budget.ends
        return min(max(1, count - late), budget.most)

    return epochs


def plan_depths(session: Session, settings: Settings) -> tuple[list[DepthPlan], Budget | None]:
    """Return the plan of each depth, the shallowest first, one of them chosen.

    With `settings.minutes`, views and epochs are as many as the time allows, at most those of the settings, and the budget of the last phase is
    returned too; without, they are the settings' own.
    """
    gone, on_event = session.journal.seconds, session.on_event
    started = time.perf_counter()
    costs = time_depths(session, settings, TIMING * 60 * (settings.minutes or math.inf))
    train, valid = (len(session.table.part(part)) for part in ("train", "valid"))
    work = Work(train, valid, costs, gone + time.perf_counter() - started)
    if settings.minutes is None:
        found = [_predict_plan(timing, work, settings) for timing in costs.depths]
        limit = AUTO_SHARE * found[-1].seconds
    else:
        limit = 60 * settings.minutes
        found = [_fit_to_time(timing, work, settings, limit) for timing in costs.depths]
    _warn_of_noise(found, on_event)
    asked = [i for i, choice in enumerate(found) if not settings.depth.isdigit() or choice.depth == settings.depth]
    fitting = [i for i in asked if found[i].epochs and found[i].seconds <= limit]
    best = _choose_depth(found, fitting, settings.epochs) if fitting else asked[0]
    if not fitting:
        found[best] = _plan_minimum(costs.depths[best], work, settings, limit, on_event)
    budget = Budget(limit, valid * costs.depths[best].upper, closing_seconds(work), train, _most_epochs(settings)) if settings.minutes else None
    return [replace(choice, chosen=i == best) for i, choice in enumerate(found)], budget


def _plan_minimum(timing: Timing, work: Work, settings: Settings, limit: float, on_event: OnEvent) -> DepthPlan:
    """Return the least that can be done where nothing ends within `limit` seconds, and say what it takes."""
    fixed = settings.depth.isdigit()
    choice = _predict_plan(timing, work, replace(settings, views=1, epochs=1 if fixed else settings.epochs))
    nothing, least = (
        (f"--depth {settings.depth} does not end", f"one epoch of --depth {settings.depth}") if fixed else ("no depth ends", "the classifier alone")
    )
    on_event(Note("depth", f"{nothing} within {limit / 60:.1f} minutes; {least} takes {choice.seconds / 60:.1f}"))
    return choice


def _warn_of_noise(found: Sequence[DepthPlan], on_event: OnEvent) -> None:
    """Say so where less to train took longer, which only other work on the machine can explain."""
    for less, more in pairwise(found[1:]):  # the classifier's step is of features
        if less.images_per_second * NOISE < more.images_per_second:
            speeds = f"depth {less.depth} {less.images_per_second:,.0f} images/s, depth {more.depth} {more.images_per_second:,.0f}"
            on_event(Note("depth", f"the timings contradict each other ({speeds}): if other work is running, the plan is worth little"))
            return


def _choose_depth(found: Sequence[DepthPlan], fitting: Sequence[int], epochs: int) -> int:
    """Return the place of the depth to take: from the middle up the deepest with nearly all its epochs, else the middle, else what comes nearest to it.

    From the middle up epochs are worth more than stages, below it not: of FER2013 8 epochs of four stages of seven or of all layers learned as much
    (0.648 and 0.653), 6, 7 or 3 epochs of all layers less (0.635, 0.643, 0.607), 4 of four stages 0.641, 3 of three stages 0.624, 7 of two 0.600.
    """
    upper = [i for i in fitting if 2 * i >= len(found) - 1]
    whole = [i for i in upper if found[i].epochs >= NEARLY_ALL * epochs]
    return max(whole or upper[:1] or fitting)


def _apply_plan(settings: Settings, choice: DepthPlan) -> Settings:
    """Return the settings of a choice, as if its depth, views and epochs had been typed."""
    internals = replace(settings.internals, most_epochs=None)
    return replace(settings, depth=choice.depth, views=choice.views, epochs=choice.epochs, minutes=None, internals=internals)


# Predicting


def _fit_to_time(timing: Timing, work: Work, settings: Settings, limit: float) -> DepthPlan:
    """Return a depth's plan: with as many views as leave time for nearly all epochs, else with one; without epochs where not LEAST of them end."""
    affordable_epochs = {}
    for views in sorted({settings.views, min(2, settings.views), 1}, reverse=True):
        one, two = (_predict_plan(timing, work, replace(settings, views=views, epochs=epochs)) for epochs in (1, 2))
        spare, epoch = limit - one.seconds, two.seconds - one.seconds
        epochs = 1 + math.floor(spare / epoch) if epoch else settings.epochs * (spare >= 0)  # a head's are not varied
        affordable_epochs[views] = min(epochs, _most_epochs(settings))
    views = max((views for views, epochs in affordable_epochs.items() if epochs >= NEARLY_ALL * settings.epochs), default=1)
    if affordable_epochs[views] >= max(1, LEAST * settings.epochs):
        return _predict_plan(timing, work, replace(settings, views=views, epochs=affordable_epochs[views]))
    return replace(_predict_plan(timing, work, replace(settings, views=1, epochs=math.ceil(LEAST * settings.epochs))), epochs=0)


def _most_epochs(settings: Settings) -> int:
    return settings.internals.most_epochs or settings.epochs


def _predict_plan(timing: Timing, work: Work, settings: Settings) -> DepthPlan:
    """Predict a training to a depth, with the views and epochs of the settings."""
    return get_strategy(DEPTH_ENDS.get(timing.depth, "depth")).estimate(timing, work, settings)


def feature_seconds(timing: Timing, passed: float, work: Work, views: int) -> float:
    """Return the seconds of the passes of the frozen part, `passed` seconds per image, over the images that are not cached."""
    plain, *varied = timing.unmade[:views]
    return plain * passed + sum(varied) * (passed + work.costs.augment)


def closing_seconds(work: Work) -> float:
    """Return the seconds from the last epoch to the end."""
    return work.valid * work.whole.upper + CLOSING


def head_seconds(work: Work, settings: Settings, features: int, epochs: int) -> float:
    """Return the seconds of training the head on so many features."""
    return work.costs.head * (epochs * (features + work.valid) + finder_batches(settings) * choose_head_batch(features, settings.bs))


def finder_batches(settings: Settings) -> int:
    """Return the steps of the learning-rate finder; 0 where a rate is given."""
    return FINDER_STEPS[1] if settings.rate is None else 0
