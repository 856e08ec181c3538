"""The limit of the memory for images that threads decode at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from time import sleep

import pytest

from tlfast.data.decoding_limit import PIXEL_BYTES, DecodingLimit, reserve


def run_threads(limit, work, paths="abcdefghij"):
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(partial(limit.run, work), paths))


def test_threads_decode_only_as_much_at_a_time_as_the_limit_allows():
    lock, held, numbers = Lock(), [], []

    def work(path):
        reserve(100)
        with lock:
            held.append(path)
            numbers.append(len(held))
        sleep(0.01)
        with lock:
            held.remove(path)
        return path

    assert run_threads(DecodingLimit(250 * PIXEL_BYTES), work) == list("abcdefghij")
    assert max(numbers) <= 2


def test_one_image_is_always_admitted_and_a_thread_that_holds_one_does_not_wait():
    def work(path):
        reserve(100)
        reserve(100)
        return path

    assert run_threads(DecodingLimit(1), work) == list("abcdefghij")


def test_an_error_ends_the_reservation():
    limit = DecodingLimit(1)

    def fail(path):
        reserve(100)
        raise ValueError(path)

    with pytest.raises(ValueError, match="a"):
        run_threads(limit, fail)
    assert run_threads(limit, lambda path: reserve(100), "ab") == [None, None]
