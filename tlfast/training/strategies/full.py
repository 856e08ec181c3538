"""Full fine-tuning: the head first, then all layers at discriminative rates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ...core.events import OnEvent
from ...core.journal import Journal
from ...core.settings import Settings
from ...core.system import release_memory
from .. import planner
from ..amp import choose_precision, precision_callbacks
from ..callbacks import input, requested
from ..lr_finder import CUSTOMARY_RATE
from ..phase import PhasePlan, fit_phase
from ..session import Session
from ..trainer import fit_within_memory
from ..types import Phase

# All layers together: the lowest group of parameters, which knows most already, moves at a fifth of the head's rate. One cycle may reach the
# very rate of the finder's least loss, ten times its `minimum`: 4 epochs on seedlings gave 0.833 at 7e-4, 0.887 at 2e-3, 0.925 at 1e-2, and
# 3 epochs on 8,000 faces 0.510 at 1e-3, 0.535 at 2e-3, 0.551 at 5e-3; 8 epochs on all of FER2013 0.650 at 2.6e-3, and 0.599 at 1.8e-4, to which
# the rounding of another optimizer had moved the minimum of a flat curve (mobilenetv2_100, November 2026).
ALL_LAYERS = {"name": "all layers", "spread": 5.0, "rate_scale": 10.0, "customary": CUSTOMARY_RATE}


def fit_all_layers(bench: Session, settings: Settings, on_event: OnEvent, journal: Journal, before: Phase | None) -> Phase:
    plan = PhasePlan(epochs=settings.epochs, epochs_in_time=planner.make_epoch_budget(journal), **ALL_LAYERS)

    def attempt(own: Settings) -> Phase:
        if own != settings:
            bench.learn.dls = bench.loaders(own)
        with prepare_all_layers(bench, own, journal) as amp:
            return fit_phase(bench.learn, replace(plan, precision=amp), own, on_event, journal, bench.learn.model, before)

    return fit_within_memory(bench, settings, plan.name, on_event, journal, attempt)


@contextmanager
def prepare_all_layers(bench: Session, settings: Settings, journal: Journal) -> Iterator[str]:
    """Set the learner up to train all its layers as the settings say; yields the number format."""
    learn = bench.learn
    learn.unfreeze()
    release_memory()  # blocks of the sizes that the head's phase needed
    amp = journal.once("precision", lambda: choose_precision(learn, settings, (3, settings.size, settings.size)))
    if settings.compile:
        learn.model.compile()
    with learn.added_cbs([input.NetworkInput(), *precision_callbacks(amp, learn.dls.device), *requested.build_callbacks(settings)]):
        yield amp
