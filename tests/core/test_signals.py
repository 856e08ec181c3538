"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal

import pytest

from tlfast.core import signals


def test_a_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), signals.defer_interrupts() as asked:
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("still here")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
