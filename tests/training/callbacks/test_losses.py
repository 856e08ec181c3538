"""Losses that callbacks of the user read."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from fastai.callback.core import Callback

from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.training import SHORT, resolved
from tlfast.core import ignore_event
from tlfast.training import trainer
from tlfast.training.callbacks import ReadLosses
from tlfast.training.callbacks.losses import stack_losses


def test_the_losses_of_an_epoch_become_numbers():
    losses = [2.0, torch.tensor(1.0), torch.tensor(0.5)]  # the first of the epoch before
    callback = ReadLosses()
    callback.learn = SimpleNamespace(recorder=SimpleNamespace(losses=losses))
    callback.after_train()
    callback.after_train()
    assert losses == [2.0, 1.0, 0.5] and all(type(loss) is float for loss in losses)


def test_skipped_batches_of_a_resumed_epoch_have_losses_in_main_memory():
    with fake_gpu() as gpu:
        assert stack_losses([torch.tensor(0.0), torch.tensor(0.5, device=gpu)]).device == gpu


def test_a_callback_of_the_user_sees_numbers(folder):
    class See(Callback):
        seen = ()

        def after_epoch(self):
            See.seen = (*See.seen, {type(loss) for loss in self.recorder.losses})

    task, chosen = resolved(folder, "full", **SHORT)
    with trainer.prepare(task, chosen, ignore_event, callbacks=[See()]) as session:
        trainer.fit(session, chosen)
    assert See.seen == ({float},) * 3
