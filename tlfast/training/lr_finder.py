"""Learning rates: customary ones, and those of fastai's finder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fastai.callback.schedule import minimum
from fastai.callback.training import GradientAccumulation
from fastai.learner import Learner

from ..core import Note, OnEvent, Progress, TrainingSettings
from ..core.files import convert_os_errors, convert_write_errors
from ..core.setting_checks import FINDER
from ..models import copy_state, is_out_of_memory
from .callbacks.accumulation import AccumulateBatches
from .callbacks.progress import ProgressCallback, silence_fastai
from .data_parallel import count_processes
from .processes import is_lost_peer
from .types import RateCurve

FALLBACK_RATE = 1e-3  # if the finder fails: the default of Adam in most libraries
MAX_RATE = 7e-3  # higher rates destroy pretrained weights, although the finder's few steps do not show it
FINDER_RANGE = {"start_lr": 1e-5, "end_lr": 1.0}  # fastai's range without three decades in which the loss is constant
CLIMBED = 1.2  # the loss starts to climb at this multiple of its minimum
BELOW_EDGE = 3.0  # the limit is this many times below the rate at which the loss starts to climb
MIN_BELOW_EDGE = 5.0  # the same for the lowest suggestion
SCRATCH_HINT = "Set TMPDIR to a folder with free space, larger than the weights"
FINDER_STEPS = (20, 60)  # fewest, for a curve with a visible minimum; most, for fastai's resolution


@dataclass(frozen=True)
class RateRule:
    """The learning rates of a phase.

    Attributes:
        customary: rate of `--lr auto`, for the default batch size if it is `by_batch`.
        spread: divides the rate for the lowest group of parameters.
        scale: multiplies fastai's `minimum` for `--lr finder`.
        least: lowest suggestion for `--lr finder`, where it is safe: for pretrained layers the curve is so flat that its minimum is noise.
        by_batch: whether the customary rate grows with the square root of the batch size (Krizhevsky 2014, arXiv 1404.5997).
    """

    customary: float
    spread: float = 1.0
    scale: float = 1.0
    least: float = 0.0
    by_batch: bool = True

    def choose(self, lr: str, suggestion: float, limit: float, batch: int) -> tuple[float, str]:
        """Return the rate of a phase for `--lr auto` or `--lr finder`, and its source. `batch` is the number of images per optimizer step.

        The customary rate is at most `limit`.

        >>> RateRule(customary=2e-3).choose("auto", 5e-4, limit=1e-2, batch=256)
        (0.004, 'customary')
        """
        if lr == FINDER:
            return suggestion, "finder"
        rate = self.customary * (math.sqrt(batch / TrainingSettings.bs) if self.by_batch else 1.0)
        return (rate, "customary") if rate <= limit else (limit, "limited by the finder")


def find_rate(learn: Learner, phase: str, epochs: int, rule: RateRule, lr: str, on_event: OnEvent) -> RateCurve:
    """Run fastai's learning-rate finder for a phase of `epochs` epochs, and choose the rate for the setting `lr`. The weights are restored afterwards.

    The suggestion is fastai's `minimum` (a tenth of the rate of the lowest loss) times the rule's scale, between the rule's least rate and
    MAX_RATE (Smith 2017, arXiv 1506.01186). The limit is well below the rate at which the loss starts to climb. If the finder fails, the
    suggestion is FALLBACK_RATE, and a note is reported.
    """
    name, steps = f"{phase}: finding the rate", count_finder_steps(epochs * len(learn.dls.train))
    progress = ProgressCallback(phase, on_event, name, steps)
    initial = copy_state(learn.model)
    # Without gradient accumulation: the finder counts batches, and would end after few optimizer steps.
    with silence_fastai(learn), learn.removed_cbs(_list_accumulating(learn)), learn.added_cbs(progress):
        try:
            with convert_os_errors(learn.path, hint=SCRATCH_HINT), convert_write_errors(learn.path):  # fastai saves the weights there
                suggested = learn.lr_find(**FINDER_RANGE, num_it=steps, show_plot=False, suggest_funcs=suggest_minimum).suggest_minimum
            edge = find_divergence(learn.recorder.lrs, learn.recorder.losses)
            limit, least = edge / BELOW_EDGE, min(rule.least, edge / MIN_BELOW_EDGE)
            suggestion = min(max(suggested * rule.scale, least), MAX_RATE)
        except (IndexError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error) or is_lost_peer(error):  # the phase starts again
                raise
            learn.model.load_state_dict(initial)  # fastai restores the weights only after a complete search
            on_event(Note(name, f"the learning-rate finder failed ({error}): using {FALLBACK_RATE:g}"))
            suggestion = limit = FALLBACK_RATE
    on_event(Progress(name, steps, steps))
    rates, losses = ([float(value) for value in values] for values in (learn.recorder.lrs, learn.recorder.losses))
    rate, source = rule.choose(lr, suggestion, limit, count_batch(learn))
    return RateCurve(rates, losses, float(suggestion), progress.step_seconds, float(limit), float(rate), source)


def suggest_minimum(rates: torch.Tensor, losses: torch.Tensor, steps: int) -> tuple[float, tuple[float, torch.Tensor]]:
    """Return fastai's `minimum` for the curve without its ends. Raises ValueError if nothing is left of it."""
    if not len(rates):
        raise ValueError("the loss climbed, or was not finite, within the first steps")
    found: tuple[float, tuple[float, torch.Tensor]] = minimum(rates, losses, steps)
    return found


def find_divergence(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the highest rate of a curve whose loss is at most CLIMBED times the lowest loss.

    >>> find_divergence([1e-3, 1e-2, 1e-1], [1.0, 1.1, 9.0])
    0.01
    """
    values = [float(loss) for loss in losses]
    least = min(values[len(values) // 10 :])  # the first losses may come from easy batches
    return max(rate for rate, loss in zip(rates, values, strict=True) if loss <= CLIMBED * least)


def count_batch(learn: Learner) -> int:
    """Return the number of images per optimizer step, with those of gradient accumulation and of all processes."""
    accumulated = (each.count_images() if isinstance(each, AccumulateBatches) else each.n_acc for each in _list_accumulating(learn))
    return int(next(accumulated, learn.dls.train.bs)) * count_processes(learn)


def _list_accumulating(learn: Learner) -> list[GradientAccumulation]:
    return [callback for callback in learn.cbs if isinstance(callback, GradientAccumulation)]


def count_finder_steps(training_steps: int) -> int:
    """Return the number of finder steps: that of the phase itself, within FINDER_STEPS."""
    fewest, most = FINDER_STEPS
    return min(max(training_steps, fewest), most)
