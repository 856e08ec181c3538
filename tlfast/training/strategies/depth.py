"""Fine-tuning to a depth: the topmost stages train on cached activations of the frozen ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.torch_core import set_seed
from torch import nn

from ...core.events import OnEvent
from ...core.journal import Journal
from ...core.settings import Settings
from ...core.system import release_memory
from ...models.stages import SplitBody, split_at
from .. import checkpoints, planner
from ..activations import BATCH_FORWARD, ActivationLoader, compute_features
from ..amp import choose_precision, precision_callbacks
from ..callbacks import requested
from ..features import Features, extract
from ..head import adapt_batchnorm, train_head
from ..learner import epoch_metrics, split_parameters
from ..lr_finder import CUSTOMARY_RATE
from ..optim import build_adam
from ..phase import PhasePlan, fit_phase
from ..session import Session
from ..trainer import fit_within_memory
from ..types import Phase


def fit_upper_stages(bench: Session, settings: Settings, on_event: OnEvent, journal: Journal, first: Phase | None) -> list[Phase]:
    """Train the topmost stages on what the frozen ones below make of the images, the head first; `first` if that was done before an interruption."""
    last = checkpoints.load_phase(journal, UPPER["name"], bench.learn.model)
    if not last:
        parts, kept, first = extract_lower_stages(bench, settings, on_event, journal, first)
        plan = PhasePlan(epochs=settings.epochs, features=kept.cost, epochs_in_time=planner.make_epoch_budget(journal), **UPPER)

        def attempt(own: Settings) -> Phase:
            with open_upper_learner(bench, parts, kept, own, journal) as (upper, amp):
                return fit_phase(upper, replace(plan, precision=amp), own, on_event, journal, bench.learn.model, first)

        last = fit_within_memory(bench, settings, plan.name, on_event, journal, attempt)
    return [*([first] if first else []), last]


def extract_lower_stages(
    bench: Session, settings: Settings, on_event: OnEvent, journal: Journal, first: Phase | None
) -> tuple[SplitBody, Features, Phase | None]:
    """Divide the body, keep what its lower stages make of the images, and train the head on what the upper ones make of that, if it is not."""
    learn = bench.learn
    parts = split_at(learn.model[0], settings.arch, int(settings.depth), settings.size)
    kept = extract(parts.lower, bench, settings, on_event)
    if not first and settings.freeze_epochs:
        set_seed(settings.seed, reproducible=True)  # the loader draws its own seed
        adapt_batchnorm(parts.upper, ActivationLoader(kept.train, settings.bs, True, learn.dls.device), settings, on_event)
        first = train_head(learn, compute_features(kept, parts, on_event), settings.freeze_epochs, settings, on_event, journal)
    return parts, kept, first


# As all layers together, see `training.ALL_LAYERS`, with twice the finder's scale, and less apart. The four topmost stages, mobilenetv2_100,
# November 2026: 6 epochs on seedlings gave 0.925 at 2.2e-3, 0.929 at 5e-3, and with what the finder's minimum alone says, which is chance there,
# 0.893 at 6e-4; 8 epochs on FER2013 0.626 at 5e-3 with a spread of 5, 0.640 at 2e-3, and 0.637 with mixup on what is kept.
UPPER = {"name": "upper stages", "spread": 2.0, "rate_scale": 20.0, "customary": CUSTOMARY_RATE}


@contextmanager
def open_upper_learner(bench: Session, parts: SplitBody, kept: Features, settings: Settings, journal: Journal) -> Iterator[tuple[Learner, str]]:
    """Give a fastai Learner of the upper stages and the head on what is kept, and its number format.

    They are layers of the whole network: what it learns that has at once.
    """
    release_memory()
    learn = bench.learn
    body, head = learn.model
    device = learn.dls.device
    loaders = DataLoaders(ActivationLoader(kept.train, settings.bs, True, device), ActivationLoader(kept.valid, BATCH_FORWARD, False, device), device=device)
    upper = Learner(
        loaders,
        nn.Sequential(parts.upper, head),
        learn.loss_func,
        opt_func=build_adam,
        splitter=lambda model: split_parameters(model, body),
        metrics=epoch_metrics(),
        path=learn.path,
        model_dir=learn.model_dir,
    )
    upper.unfreeze()
    amp = journal.once("precision", lambda: choose_precision(upper, settings, kept.train[torch.tensor([0])].shape[1:]))
    if settings.compile:
        upper.model.compile()
    with upper.added_cbs([*precision_callbacks(amp, device), *requested.build_callbacks(settings)]):
        yield upper, amp
