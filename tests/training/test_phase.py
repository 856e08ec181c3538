"""One phase of a training."""

from __future__ import annotations

import contextlib

from tlfast.core.journal import Journal
from tlfast.training import phase
from tlfast.training.types import RateCurve


def test_epochs_that_were_settled_stay_so_after_an_interruption():
    journal, curve = Journal(), RateCurve([], [], 1e-3, step=0.01)

    def epochs(ending, found=curve):
        return phase._adjust_epochs(phase.PhasePlan("upper stages", 5, contextlib.nullcontext, epochs_in_time=ending), found, lambda event: None, journal)

    assert epochs(lambda step: 9, None) == 5, "without a finder the plan stands"
    assert epochs(lambda step: round(0.03 / step)) == 3
    assert epochs(lambda step: 9) == 3
