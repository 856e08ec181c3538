"""Learning-rate finder: fastai's, with limits on the suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastai.callback.schedule import minimum
from fastai.learner import Learner

from ..core import Note, OnEvent, Progress
from ..models import copy_state, is_out_of_memory
from .callbacks.progress import ProgressCallback, silence_fastai
from .types import RateCurve

FALLBACK_RATE = 1e-3  # if the finder fails: the default of Adam in most libraries
CUSTOMARY_RATE = 2e-3  # one cycle on pretrained layers; see docs/benchmarks.md, "Learning rates"
HIGHEST_RATE = 7e-3  # higher rates destroy pretrained weights, although the finder's few steps do not show it
FINDER_RANGE = {"start_lr": 1e-5, "end_lr": 1.0}  # fastai's range without three decades in which the loss is constant
CLIMBED = 1.2  # the loss starts to climb at this multiple of its minimum
BELOW_EDGE = 5.0  # a safe rate is this many times below the one at which the loss starts to climb
FINDER_STEPS = (20, 60)  # fewest, for a curve with a visible minimum; most, for fastai's resolution


@dataclass(frozen=True)
class RateRule:
    """How the rates of a phase follow from the finder's curve.

    `scale` multiplies fastai's `minimum`; `spread` divides the rate for the lowest group of parameters. The rate is at least `customary`, if that lies
    well below the rate at which the loss starts to climb: for pretrained layers the curve before it is so flat that its minimum is noise.
    """

    spread: float = 1.0
    scale: float = 1.0
    customary: float = 0.0


def find_rate(learn: Learner, phase: str, epochs: int, rule: RateRule, on_event: OnEvent) -> RateCurve:
    """Run fastai's learning-rate finder for a phase of `epochs` epochs; the weights are restored afterwards.

    The suggestion is fastai's `minimum` (a tenth of the rate of the lowest loss) times the rule's scale, within the rule's limits and HIGHEST_RATE
    (Smith 2017, arXiv 1506.01186). If the finder fails, the suggestion is FALLBACK_RATE and a note is reported.
    """
    name, steps = f"{phase}: finding the rate", count_finder_steps(epochs * len(learn.dls.train))
    progress = ProgressCallback(phase, on_event, name, steps)
    initial = copy_state(learn.model)
    with silence_fastai(learn), learn.added_cbs(progress):
        try:
            suggested = learn.lr_find(**FINDER_RANGE, num_it=steps, show_plot=False, suggest_funcs=minimum).minimum
            least = min(rule.customary, find_divergence(learn.recorder.lrs, learn.recorder.losses) / BELOW_EDGE)
            rate = min(max(suggested * rule.scale, least), HIGHEST_RATE)
        except (IndexError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):  # the phase starts again with a smaller batch
                raise
            learn.model.load_state_dict(initial)  # fastai restores the weights only after a complete search
            on_event(Note(name, f"the learning-rate finder failed ({error}): using {FALLBACK_RATE:g}"))
            rate = FALLBACK_RATE
    losses = [float(loss) for loss in learn.recorder.losses]
    on_event(Progress(name, steps, steps))
    return RateCurve([float(rate) for rate in learn.recorder.lrs], losses, float(rate), progress.step_seconds)


def find_divergence(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the highest rate of a curve whose loss is at most CLIMBED times the lowest loss.

    >>> find_divergence([1e-3, 1e-2, 1e-1], [1.0, 1.1, 9.0])
    0.01
    """
    values = [float(loss) for loss in losses]
    least = min(values[len(values) // 10 :])  # the first losses may come from easy batches
    return max(rate for rate, loss in zip(rates, values, strict=True) if loss <= CLIMBED * least)


def count_finder_steps(training_steps: int) -> int:
    """Return the number of finder steps: that of the phase itself, within FINDER_STEPS."""
    fewest, most = FINDER_STEPS
    return min(max(training_steps, fewest), most)
