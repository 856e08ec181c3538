"""Reading ahead of the training."""

from __future__ import annotations

import pytest
import torch

from tlfast.training.read_ahead import READ_AHEAD, read_ahead

CPU = torch.device("cpu")


def test_batches_keep_their_order_and_errors_are_raised():
    assert [int(x) for (x,) in read_ahead(lambda i: (torch.tensor(i * i),), range(7), CPU)] == [i * i for i in range(7)]
    assert list(read_ahead(lambda i: (torch.tensor(i),), [], CPU)) == []
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda i: (torch.tensor(1 // (3 - i)),), range(7), CPU))


def test_no_more_than_the_next_batches_are_read():
    begun = []
    batches = read_ahead(lambda i: (begun.append(i) or torch.tensor(i),), range(10), CPU)
    next(batches)
    batches.close()  # waits for what has begun
    assert len(begun) == READ_AHEAD + 1
