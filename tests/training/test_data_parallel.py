"""One fit by two processes on the CPU, compared with the same fit by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.helpers import parallel
from tlfast.distributed.launcher import launch
from tlfast.training import processes
from tlfast.training.data_parallel import choose_indices

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The fits by two processes."""
    folder = tmp_path_factory.mktemp("together")
    assert launch("tests.helpers.parallel", str(folder), 2) == {}
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=False)
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The fits by one process, with twice the batch."""
    return parallel.fit_all()


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert list(first) == list(second)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.parametrize("name", ["plain", "synchronized"])
def test_two_half_batches_equal_a_whole_batch(together: dict[str, Any], alone: dict[str, Any], name: str) -> None:
    start = parallel.build_network("batchnorm" if name == "synchronized" else "").state_dict()
    assert largest_difference(start, alone[name]["state"]) > 0.01  # the fit changed the weights
    assert largest_difference(together[name]["state"], alone[name]["state"]) < TOLERANCE


def test_separate_statistics_of_batchnorm_differ(together: dict[str, Any], alone: dict[str, Any]) -> None:
    assert largest_difference(together["separate"]["state"], alone["separate"]["state"]) > TOLERANCE
    assert largest_difference(together["separate"]["state"], alone["separate"]["state"]) < 0.1


def test_an_epoch_has_each_image_once(together: dict[str, Any]) -> None:
    trained = Counter(image for train, _ in together["plain"]["seen"] for image in train)
    validated = Counter(image for _, valid in together["plain"]["seen"] for image in valid)
    assert trained == Counter(range(parallel.IMAGES))
    assert validated == Counter(range(parallel.IMAGES, parallel.IMAGES + parallel.VALID))


def test_all_processes_record_the_same_metrics_of_all_images(together: dict[str, Any], alone: dict[str, Any]) -> None:
    first, second = together["synchronized"]["values"]
    assert first == second
    (expected,) = alone["synchronized"]["values"]
    assert len(first) == len(expected) == 2
    for row, expected_row in zip(first, expected, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-4)


def test_the_finder_agrees(together: dict[str, Any], alone: dict[str, Any]) -> None:
    first, second = together["curves"]
    assert (first.rates, first.losses, first.rate, first.source) == (second.rates, second.losses, second.rate, second.source)
    (expected,) = alone["curves"]
    assert first.rate == expected.rate  # the batch of both is the same
    assert first.losses == pytest.approx(expected.losses, rel=1e-3)


def test_all_processes_stop_at_the_same_loss_that_is_not_finite(together: dict[str, Any], alone: dict[str, Any]) -> None:
    assert together["stops"] == alone["stops"] * 2
    assert alone["stops"][0] > 0


def test_a_batch_is_limited_to_the_share_of_the_images(together: dict[str, Any], alone: dict[str, Any]) -> None:
    assert together["limited"] == (1, parallel.IMAGES // 2, parallel.IMAGES)  # one step; the size within and after the block
    assert alone["limited"] == (1, parallel.IMAGES, parallel.IMAGES)
    assert together["too few"] == "2 processes need 4 training images, there are 3"
    assert alone["too few"] == ""


def test_decisions_of_several_processes(together: dict[str, Any], alone: dict[str, Any]) -> None:
    assert together["flags"] == ([True, False], 0, [0, 1])
    assert alone["flags"] == ([False, False], 0, [0])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_are_disjoint(count: int, drop_last: bool) -> None:
    shares = [choose_indices(range(100, 201), 4, drop_last, index, count) for index in range(count)]
    together = [image for share in shares for image in share]
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(100, 201))
    if drop_last:
        assert {len(share) for share in shares} == {101 // (4 * count) * 4}
    else:
        assert len(together) == 101
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_changes_nothing() -> None:
    learn = parallel.build_learner()
    with parallel.open_data_parallel(learn, sync_bn=True):
        assert not hasattr(learn, "data_parallel")
        assert len(learn.dls.train) == parallel.IMAGES // parallel.WHOLE_BATCH


def test_a_single_process_loses_no_other() -> None:
    assert not processes.is_lost_peer(RuntimeError("Connection reset by peer"))
