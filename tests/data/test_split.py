"""Splits of the images."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from sklearn.model_selection import StratifiedGroupKFold

from tlfast import tasks
from tlfast.core.errors import DataError
from tlfast.data import Row, load_table, split
from tlfast.tasks import resolve


def test_a_smaller_share_is_part_of_a_larger_one(folder):
    task = tasks.folder_task(folder)

    def kept(share):
        table = load_table(task, resolve.resolve_settings(task, None, {"train_pct": share}), folder)
        assert len(table.rows) == 36 and len(table.part("valid")) == 6
        return {row.path for row in table.part("train")}

    assert kept(0.2) < kept(0.5) < kept(1.0)


def test_groups_with_too_few_images_for_the_folds_are_refused():
    rows = [Row(f"{label}{i}.png", label, group=f"{label}{i}") for label in "ab" for i in range(3)]
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {"fold": 0})
    with pytest.raises(DataError, match="the largest class, 'a', has 3 images, fewer than the 5 folds"):
        split.assign_splits(rows, settings, seed=0, folds=5)
    assert {row.split for row in split.assign_splits(rows, settings, seed=0, folds=3)} == {"train", "valid"}


def test_too_few_groups_are_refused():
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {})
    for groups, message in (("aaaa", "all images are of one group"), ("aabb", "2 groups cannot be divided into 5 parts, of which one is for validation")):
        rows = [Row(f"{n}.png", "xy"[n % 2], group=group) for n, group in enumerate(groups)]
        with pytest.raises(DataError, match=message):
            split.assign_splits(rows, settings, seed=0, folds=5)
    rows = [Row(f"{n}.png", "xy"[n % 2], group="ab"[n // 8]) for n in range(16)]
    halves = split.assign_splits(rows, replace(settings, valid_pct=0.5), seed=0, folds=5)
    assert {(row.group, row.split) for row in halves} in ({("a", "train"), ("b", "valid")}, {("b", "train"), ("a", "valid")}), "a larger --valid-pct does help"


@pytest.mark.parametrize(("fraction", "held_out"), [(0.2, 20), (0.3, 30), (0.4, 40), (0.5, 50), (0.75, 75), (0.9, 90)])
def test_a_fraction_of_grouped_images_is_held_out(fraction, held_out):
    rows = [Row(f"{n}.png", "xy"[n % 2], group=str(n // 2)) for n in range(200)]
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {"valid_pct": fraction})
    divided = split.assign_splits(rows, settings, seed=0, folds=5)
    valid = [row for row in divided if row.split == "valid"]
    assert len(valid) == 2 * held_out
    assert not {row.group for row in valid} & {row.group for row in divided if row.split == "train"}


@pytest.mark.parametrize(("fraction", "held_out"), [(0.2, 20), (0.4, 40)])
def test_a_large_group_stays_in_the_train_split(fraction, held_out):
    """StratifiedGroupKFold puts it into the first fold."""
    draw = random.Random(1)
    rows = [Row(f"{n}.png", draw.choice("xxyz"), group="large" if n < 120 else str(n // 10)) for n in range(200)]
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {"valid_pct": fraction})
    for seed in range(3):
        divided = split.assign_splits(rows, settings, seed=seed, folds=5)
        assert abs(sum(row.split == "valid" for row in divided) - 2 * held_out) <= 10
        assert not split.describe_share(rows, divided, settings)
    former = split.assign_splits(rows, settings, seed=0, folds=5, by_size=False)
    assert next(row.split for row in former if row.group == "large") == "valid", "as in runs of earlier versions"
    (note,) = split.describe_share(rows, former, settings)
    assert "of the images in place of" in note


def test_runs_of_version_0_1_0_keep_their_split_of_groups():
    rows = [Row(f"{n}.png", "xy"[n % 2], group=str(n // 2)) for n in range(60)]
    settings = resolve.resolve_settings(tasks.get_task("digits"), None, {"valid_pct": 0.3})
    divided = split.assign_splits(rows, settings, seed=3, folds=5, by_size=False)
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=3)  # round(1 / 0.3) folds
    first = next(splitter.split(rows, [row.label for row in rows], [row.group for row in rows]))[1]
    assert [i for i, row in enumerate(divided) if row.split == "valid"] == sorted(first)


def test_of_folds_of_a_similar_size_the_one_with_most_classes_is_held_out():
    parts = [[0, 1], [2, 3], [4, 5]]
    assert split._choose_by_size([Row(f"{n}.png", "xxxyxy"[n]) for n in range(6)], parts, 1, 1 / 3) == (1,)


@pytest.mark.parametrize(("classes", "largest", "count"), [(40, 9, 60), (200, 3, 210), (7, 50, 100), (30, 2, 10)])
def test_quotas_reduce_the_class_that_gained_most(classes, largest, count):
    draw = random.Random(classes)
    sizes = {str(label): draw.randint(2, largest) for label in range(classes)}
    rows = [Row(f"{label}-{n}.png", label) for label, size in sizes.items() for n in range(size)]
    fraction = count / len(rows)
    quotas = {label: min(max(1, round(fraction * size)), size - 1) for label, size in sizes.items()}
    while sum(quotas.values()) > max(count, classes):
        quotas[max((label for label in quotas if quotas[label] > 1), key=lambda label: (quotas[label] - fraction * sizes[label], label))] -= 1
    chosen = split._sample_stratified(rows, range(len(rows)), count, seed=0, leave=1)
    assert Counter(rows[i].label for i in chosen) == quotas
