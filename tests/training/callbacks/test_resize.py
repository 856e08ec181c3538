"""Image sizes that grow during training."""

from __future__ import annotations

from tests.helpers.training import watched


def test_sizes_grow_epoch_by_epoch_and_validation_is_at_the_full_one(folder):
    seen, _ = watched(folder, sizes="16,24")
    steps = len(seen.sizes[True]) // 3
    assert seen.sizes[True] == [16] * steps + [24] * steps + [32] * steps
    assert set(seen.sizes[False]) == {32}
