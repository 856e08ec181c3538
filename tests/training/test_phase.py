"""One phase of a training."""

from __future__ import annotations

import contextlib

from tlfast.core.journal import Journal
from tlfast.training import phase
from tlfast.training.budget import Budget
from tlfast.training.types import RateCurve


def test_epochs_that_were_settled_stay_so_after_an_interruption():
    journal, curve = Journal(), RateCurve([], [], 1e-3, step=0.01)

    def epochs(ends, found=curve):
        budget = Budget(ends=ends, judging=0.0, closing=0.0, images=100, most=9) if ends else None
        return phase._adjust_epochs(phase.PhasePlan("upper stages", 5, contextlib.nullcontext, budget=budget), found, lambda event: None, journal)

    assert epochs(None) == 5
    assert epochs(1e6, None) == 5, "without a finder the plan stands"
    assert epochs(journal.seconds + 3.4) == 3
    assert epochs(1e6) == 3
    assert epochs(1e6, None) == 3
