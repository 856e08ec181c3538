"""Partial fine-tuning: the backbone stays frozen and the head trains on its features."""

from __future__ import annotations

from ...core.events import OnEvent
from ...core.journal import Journal
from ...core.settings import Settings
from ..callbacks import input
from ..features import Features, extract
from ..head import adapt_batchnorm, train_head
from ..phase import PhasePlan, fit_phase
from ..session import Session
from ..types import Phase

BATCHNORM = "head and BatchNorm"


def fit_head(bench: Session, settings: Settings, on_event: OnEvent, journal: Journal) -> tuple[Phase | None, Features | None]:
    """Train the head alone on the frozen backbone's features: all of partial fine-tuning, the start of full fine-tuning.

    With `train_bn`, partial fine-tuning is on images instead, as fastai does it.
    """
    full = settings.strategy == "full"
    if settings.train_bn and not full:
        bench.learn.freeze()  # fastai's: BatchNorm goes on training
        with bench.learn.added_cbs(input.NetworkInput()):
            return fit_phase(bench.learn, PhasePlan(BATCHNORM, settings.epochs), settings, on_event, journal, bench.learn.model), None
    epochs = settings.freeze_epochs if full else settings.epochs
    if not epochs:
        return None, None
    if full:
        adapt_batchnorm(bench.learn.model[0], bench.learn.dls.train, settings, on_event)
    features = extract(bench.learn.model[0], bench, settings, on_event)
    return train_head(bench.learn, features, epochs, settings, on_event, journal), features
