"""Reading ahead of the training."""

from __future__ import annotations

from contextlib import nullcontext
from threading import get_ident
from types import SimpleNamespace

import pytest
import torch

from tlfast.training import read_ahead as module
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


def test_mps_is_used_by_the_first_thread_only():
    copied, read = set(), set()
    batch = (SimpleNamespace(to=lambda device: copied.add((device.type, get_ident()))),)
    assert len(list(read_ahead(lambda i: read.add(get_ident()) or batch, range(5), torch.device("mps")))) == 5
    assert copied == {("mps", get_ident())} and get_ident() not in read


def test_the_second_thread_uses_the_gpu_of_its_process(monkeypatch):
    chosen, read = [], set()
    device = torch.device("cuda", 3)
    stream = SimpleNamespace(device=device, record_event=lambda: None, wait_event=lambda event: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append((device, get_ident())))
    monkeypatch.setattr(module, "copy_to_device", lambda x, device: x)
    batch = (SimpleNamespace(record_stream=lambda stream: None),)
    assert list(read_ahead(lambda i: read.add(get_ident()) or batch, range(5), device)) == [batch] * 5
    (thread,) = read
    assert chosen == [(device, thread)] and thread != get_ident()
