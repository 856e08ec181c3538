"""Learning-rate finder: fastai's, with limits on the suggestion."""

from __future__ import annotations

from collections.abc import Sequence

import fastai.callback.progress  # noqa: F401 (gives a Learner no_bar)
from fastai.callback.schedule import minimum
from fastai.learner import Learner

from ..core.events import Note, OnEvent, Progress
from .callbacks.progress import ProgressCallback, silence_fastai
from .phase import PhasePlan
from .types import RateCurve

FALLBACK_RATE = 1e-3  # where the finder fails: Adam's own default in most libraries
CUSTOMARY_RATE = 2e-3  # of one cycle for pretrained layers, see training.ALL_LAYERS and activations.UPPER
HIGHEST_RATE = 7e-3  # beyond it Adam forgets what was pretrained, however well the finder's few steps went
FINDER_RANGE = {"start_lr": 1e-5, "end_lr": 1.0}  # fastai's own, without the three decades in which nothing moves
CLIMBED = 1.2  # times its least, from which on a loss climbs
BELOW_EDGE = 5.0  # a rate that can be trusted lies this much below the one from which on the loss climbs
FINDER_STEPS = (20, 60)  # at least, for a curve to see a minimum in; and at most, fastai's own resolution


def find_rate(learn: Learner, plan: PhasePlan, on_event: OnEvent) -> RateCurve:
    """Run fastai's learning-rate finder; the model is left as it was.

    The suggestion is fastai's `minimum` (a tenth of the rate of the least loss) times the phase's scale, and HIGHEST_RATE at most. Measured on
    FER2013 and seedlings, `valley`, `slide` and `steep` differ tenfold from seed to seed and are often far too low for one cycle.
    """
    name, steps = f"{plan.name}: finding the rate", count_finder_steps(plan.epochs * len(learn.dls.train))
    watch = ProgressCallback(plan, on_event, name, steps)
    with silence_fastai(learn), learn.added_cbs(watch):
        try:
            suggested = learn.lr_find(**FINDER_RANGE, num_it=steps, show_plot=False, suggest_funcs=minimum).minimum
            least = min(plan.customary, find_divergence(learn.recorder.lrs, learn.recorder.losses) / BELOW_EDGE)
            found = min(max(suggested * plan.rate_scale, least), HIGHEST_RATE)
        except (IndexError, ValueError, RuntimeError) as error:
            on_event(Note(name, f"the finder failed ({error}); the rate is {FALLBACK_RATE:g}"))
            found = FALLBACK_RATE
    losses = [float(loss) for loss in learn.recorder.losses]
    on_event(Progress(name, steps, steps))
    return RateCurve([float(rate) for rate in learn.recorder.lrs], losses, float(found), watch.step_seconds)


def find_divergence(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the highest rate of a finder's curve at which its loss does not yet stand a fifth above its least."""
    values = [float(loss) for loss in losses]
    least = min(values[len(values) // 10 :])  # the first ones are of few batches, which may be easy ones
    return max(rate for rate, loss in zip(rates, values, strict=True) if loss <= CLIMBED * least)


def count_finder_steps(training_steps: int) -> int:
    """Return how many steps to search: no more than the phase itself will take, within FINDER_STEPS."""
    least, most = FINDER_STEPS
    return min(max(training_steps, least), most)
