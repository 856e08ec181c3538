"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from fastai.callback.core import Callback

from tests.helpers.training import resolved
from tlfast.training import trainer


def test_the_average_is_validated_and_training_goes_on_from_the_weights(folder):
    task, chosen = resolved(folder, "full", ema=True, epochs=3)
    with trainer.prepare(task, chosen, lambda event: None) as session:
        watch = Averages()
        session.learn.add_cb(watch)
        trainer.fit(session, chosen)
    assert all(not torch.equal(a, b) for a, b in zip(watch.trained, watch.validated, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(watch.trained[:-1], watch.resumed, strict=True))


def test_the_average_begins_with_the_weights_of_the_first_accumulated_step(folder):
    task, chosen = resolved(folder, "full", ema=True, epochs=1, freeze_epochs=0, bs=4, accumulate=4)  # one step
    with trainer.prepare(task, chosen, lambda event: None) as session:
        watch = Averages()
        session.learn.add_cb(watch)
        trainer.fit(session, chosen)
    assert torch.equal(*watch.trained, *watch.validated)


class Averages(Callback):
    """The head's last layer at the end of each epoch's training, in its validation, and at the next epoch's start."""

    order = 63

    def __init__(self) -> None:
        self.trained, self.validated, self.resumed = [], [], []

    def weight(self) -> torch.Tensor:
        return self.learn.model[1][-1].weight.detach().clone()

    def before_train(self) -> None:
        if self.epoch:
            self.resumed.append(self.weight())

    def after_train(self) -> None:
        self.trained.append(self.weight())

    def before_validate(self) -> None:
        self.validated.append(self.weight())
