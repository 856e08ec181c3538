"""Ways to train that a user may ask for, and the number format."""

from __future__ import annotations

import pytest
from fastai.callback.core import Callback

from tests.helpers.training import resolved
from tlfast.training import trainer
from tlfast.training.callbacks import from_settings


def test_accumulated_batches_make_one_step(folder):
    steps = {}
    for count in (1, 3):
        task, chosen = resolved(folder, "full", accumulate=count, epochs=3)
        with trainer.prepare(task, chosen, lambda event: None) as session:
            counter = Steps()
            session.learn.add_cb(counter)
            trainer.fit(session, chosen)
        steps[count] = counter.count
    assert steps[1] == 3 * steps[3] > 0


class Steps(Callback):
    count = 0

    def after_step(self) -> None:
        self.count += 1


def test_nothing_is_added_unasked(folder):
    assert from_settings.build_callbacks(resolved(folder, "full")[1]) == []


@pytest.mark.parametrize(("bs", "accumulate", "steps"), [(8, 1000, 3), (64, 4, 3), (8, 2, 4)])
def test_accumulated_batches_are_at_most_those_of_an_epoch(pictures, bs, accumulate, steps):
    task, chosen = resolved(pictures, "full", bs=bs, accumulate=accumulate, epochs=3, freeze_epochs=0)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        counter = Steps()
        session.learn.add_cb(counter)
        trainer.fit(session, chosen)
    assert counter.count == steps  # of 9 batches of 8 images, or 3 of all images
