"""Splits, groups, folds and subsets of the rows of an image table."""

from __future__ import annotations

import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from heapq import heapify, heappop, heappush
from itertools import combinations
from operator import or_

from ..core import DataError, DataSettings, UsageError
from .images import split_archive
from .members import inner_path
from .types import Row

SPLITS = ("train", "valid", "test")
TRIED_FOLDS = 20  # of groups, to hold out a fraction of the images
NEAR = 0.05  # accepted difference between the size of a validation split and --valid-pct, as a fraction of all images
SPARE = "spare"  # training images left out by --train-pct; they stay in the table so that all fractions share one store
SPLIT_NAMES = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


def drop_spare(rows: Iterable[Row]) -> list[Row]:
    """Return the rows without the training images that `--train-pct` leaves out."""
    return [row for row in rows if row.split != SPARE]


def assign_groups(rows: list[Row], pattern: str) -> list[Row]:
    """Set the group of each row to the match of a regular expression in its file name: the first capture group if there is one.

    A file name without a match, or with an empty one, is a group of its own. Raises UsageError if no file name matches.
    """
    compiled = re.compile(pattern)
    names = [_file_name(row.path) for row in rows]
    matches = [compiled.search(name) for name in names]
    groups = [(match[1] if compiled.groups else match[0]) if match else "" for match in matches]
    if not any(groups):
        problem = "an empty part of every" if any(matches) else "no"
        raise UsageError(f"--group-by '{pattern}' matches {problem} file name, such as {names[0]}", "Give --group-by a pattern for such names")
    return [replace(row, group=group or row.path) for row, group in zip(rows, groups, strict=True)]


def _file_name(path: str) -> str:
    _, member = split_archive(path)
    return inner_path(member).name if member else os.path.basename(path)


def assign_splits(rows: list[Row], settings: DataSettings, *, seed: int, folds: int, official: bool = False, by_size: bool = True) -> list[Row]:
    """Return the rows, each with a split. Rows without one are training images.

    With `--fold`, the train and valid splits together are divided into `folds` random folds, unless the splits are an `official` fold of the
    data. Without a valid split, a fraction `--valid-pct` of the training images is held out. The test split never changes. With groups, the
    folds whose total size is nearest to the fraction are held out; without `by_size`, as in earlier versions, the first of about
    `1 / valid_pct` folds. Raises DataError for classes that are too small and for too few groups.
    """
    rows = [row if row.split else replace(row, split="train") for row in rows]
    if not is_drawn(rows, settings, official):
        return rows
    pool = [i for i, row in enumerate(rows) if row.split not in ("test", SPARE)]
    if not pool:
        raise DataError("all images are in the test split", "Set the split column to train or valid for some, or leave it empty")
    pool_rows = [rows[i] for i in pool]
    _check_class_sizes(pool_rows)
    fold = settings.fold
    chosen = _draw_validation(pool_rows, settings.valid_pct, seed, by_size) if fold is None else _draw_fold(pool_rows, fold, folds, seed)
    valid, pooled = {pool[i] for i in chosen}, set(pool)
    return [replace(row, split="valid" if i in valid else "train") if i in pooled else row for i, row in enumerate(rows)]


def is_drawn(rows: Iterable[Row], settings: DataSettings, official: bool) -> bool:
    """Return whether `assign_splits` draws a validation split from these rows."""
    return all(row.split != "valid" for row in rows) or (settings.fold is not None and not official)


def has_splits(rows: Iterable[Row], known: Mapping[str, str]) -> bool:
    """Return whether the rows have the splits in `known`, by absolute path, as far as their images are in it."""
    return all(known.get(os.path.abspath(row.path), row.split) == row.split for row in rows)


def use_known_splits(rows: Sequence[Row], known: Mapping[str, str]) -> list[Row]:
    """Return the rows with the splits in `known`, by absolute path, and others as training images. The test split stays the same."""
    return [row if row.split == "test" else replace(row, split=known.get(os.path.abspath(row.path), "train")) for row in rows]


def _check_class_sizes(rows: list[Row]) -> None:
    counts = Counter(row.label for row in rows)
    label, count = min(counts.items(), key=lambda item: item[1], default=("", 0))
    if count < 2:
        raise DataError(
            f"class '{label}' has {count} image; it needs at least two, one for training and one for validation", "Add images of it, or remove the class"
        )


def describe_share(before: Sequence[Row], after: Sequence[Row], settings: DataSettings) -> list[str]:
    """Return a note if groups make a drawn validation split much larger or smaller than `--valid-pct`. `before` are the rows as they were read."""
    if settings.fold is not None or not any(row.group for row in before) or any(row.split == "valid" for row in before):
        return []
    pool = [row for row in after if row.split != "test"]
    share = sum(row.split == "valid" for row in pool) / len(pool)
    if abs(share - settings.valid_pct) < NEAR + 1e-9:
        return []
    return [f"the valid split has {share:.0%} of the images in place of {settings.valid_pct:.0%}, because groups are not divided"]


def _draw_validation(rows: list[Row], fraction: float, seed: int, by_size: bool) -> list[int]:
    """Return the indices of validation images: stratified by class, groups undivided."""
    if any(row.group for row in rows):
        least = max(2, round(1 / fraction))
        _check_groups(rows, least)
        if not by_size:
            return sorted(_divide_groups(rows, least, seed)[0])
        held_out, folds = _approximate(fraction, min(_count_groups(rows), max(Counter(row.label for row in rows).values())))
        parts = _divide_groups(rows, folds, seed)
        return sorted(i for number in _choose_by_size(rows, parts, held_out, fraction) for i in parts[number])
    count = max(1, round(len(rows) * fraction))
    return _sample_stratified(rows, range(len(rows)), count, seed, leave=1)


def _choose_by_size(rows: list[Row], parts: Sequence[Sequence[int]], held_out: int, fraction: float) -> tuple[int, ...]:
    """Return the numbers of about `held_out` folds with about a fraction of the rows; of those within NEAR, the first with the most classes.

    The first fold of StratifiedGroupKFold often has the largest group.
    """
    bits = {label: 1 << number for number, label in enumerate(sorted({row.label for row in rows}))}
    sizes, classes = [len(part) / len(rows) for part in parts], [sum({bits[rows[i].label] for i in part}) for part in parts]
    errors: dict[tuple[int, ...], float] = {}
    for number in (held_out, held_out + 1, held_out - 1, held_out + 2, held_out - 2):
        if 0 < number < len(parts):
            errors |= {chosen: abs(sum(sizes[i] for i in chosen) - fraction) for chosen in combinations(range(len(parts)), number)}
        if near := [chosen for chosen, error in errors.items() if error < NEAR + 1e-9]:
            return max(near, key=lambda chosen: reduce(or_, (classes[i] for i in chosen)).bit_count())
    return min(errors, key=lambda chosen: errors[chosen])


def _approximate(fraction: float, most: int) -> tuple[int, int]:
    """Return (m, k): m of k folds have about this fraction of the images. There are at most `most` folds, and at most TRIED_FOLDS if more than one is used.

    >>> _approximate(0.2, 100), _approximate(0.4, 100), _approximate(0.9, 100), _approximate(0.01, 100)
    ((1, 5), (2, 5), (9, 10), (1, 100))
    """
    tried = {*range(2, max(2, min(TRIED_FOLDS, most)) + 1), max(2, round(1 / fraction))}
    choices = [(min(max(1, round(fraction * folds)), folds - 1), folds) for folds in tried]
    return min(choices, key=lambda choice: (round(abs(choice[0] / choice[1] - fraction), 9), choice[1]))


def _draw_fold(rows: list[Row], number: int, folds: int, seed: int) -> list[int]:
    """Return the indices of fold `number` of `folds`: stratified by class, groups undivided."""
    from sklearn.model_selection import StratifiedKFold

    if any(row.group for row in rows):
        return _divide_groups(rows, folds, seed)[number]
    labels = [row.label for row in rows]
    label, count = min(Counter(labels).items(), key=lambda item: item[1])
    if count < folds:
        hint = "Add images of the class, or a larger --limit; or use --valid-pct in place of folds"
        raise DataError(f"class '{label}' has {count} images, fewer than the {folds} folds", hint)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [int(i) for i in list(splitter.split(labels, labels))[number][1]]


def _divide_groups(rows: list[Row], folds: int, seed: int) -> list[list[int]]:
    """Return the indices of each fold: classes in equal shares as far as possible, groups undivided."""
    from sklearn.model_selection import StratifiedGroupKFold

    _check_groups(rows, folds)
    labels, groups = [row.label for row in rows], [row.group or row.path for row in rows]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [[int(i) for i in valid] for _, valid in splitter.split(labels, labels, groups)]


def _count_groups(rows: list[Row]) -> int:
    return len({row.group or row.path for row in rows})


def _check_groups(rows: list[Row], folds: int) -> None:
    """Raise DataError if groups or classes are too few for a number of folds."""
    groups = _count_groups(rows)
    if groups == 1:
        hint = "Use a --group-by or --group-col with more groups, or give the splits in a table or in folders train/ and valid/"
        raise DataError("all images are of one group, which cannot be divided into training and validation", hint)
    if groups < folds:
        problem = f"{groups} groups cannot be divided into {folds} parts, of which one is for validation"
        raise DataError(problem, "Use a --group-by or --group-col with more groups, or --valid-pct with a larger fraction")
    label, count = max(Counter(row.label for row in rows).items(), key=lambda item: item[1])
    if count < folds:
        raise DataError(f"the largest class, '{label}', has {count} images, fewer than the {folds} folds", "Add images, or use a larger --valid-pct")


def limit_rows(rows: list[Row], limit: int, seed: int) -> list[Row]:
    """Return at most `limit` rows of each split, stratified by class, in the given order.

    Raises UsageError if `limit` is below the number of classes.
    """
    selected: set[int] = set()
    classes = {row.label for row in rows}
    if limit < len(classes):
        raise UsageError(f"--limit {limit} is less than the {len(classes)} classes", f"Use --limit {len(classes)} or more")
    for split in SPLITS:
        members = [i for i, row in enumerate(rows) if row.split == split]
        selected.update(members if len(members) <= limit else _sample_stratified(rows, members, limit, seed))
    return [row for i, row in enumerate(rows) if i in selected]


def subsample_train(rows: list[Row], fraction: float, seed: int) -> list[Row]:
    """Move all but a fraction of the training images of each class to the split "spare".

    With one seed, a smaller fraction is a subset of a larger one, as learning curves need.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.split == "train":
            by_label[row.label].append(i)
    generator = random.Random(seed)
    selected: set[int] = set()
    for label in sorted(by_label):
        shuffled = generator.sample(by_label[label], len(by_label[label]))
        selected.update(shuffled[: max(1, round(fraction * len(shuffled)))])
    return [replace(row, split=SPARE) if row.split == "train" and i not in selected else row for i, row in enumerate(rows)]


def _sample_stratified(rows: list[Row], members: Sequence[int], count: int, seed: int, leave: int = 0) -> list[int]:
    """Return about `count` indices out of `members`, stratified by class: at least one of each class, at most all but `leave` of it.

    The result is larger than `count` only if there are more classes. Unlike scikit-learn's stratified split, this works for tiny classes.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for i in members:
        by_label[rows[i].label].append(i)
    fraction = count / len(members)
    quotas = {label: min(max(1, round(fraction * len(indices))), len(indices) - leave) for label, indices in by_label.items()}
    surplus = sum(quotas.values()) - max(count, len(quotas))  # by rounding up
    ranks = {label: rank for rank, label in enumerate(sorted(quotas, reverse=True))}
    heap = [(fraction * len(by_label[label]) - quota, ranks[label], label) for label, quota in quotas.items() if quota > 1]
    heapify(heap)
    for _ in range(surplus):  # reduce the class that gained most
        _, rank, label = heappop(heap)
        quotas[label] -= 1
        if quotas[label] > 1:
            heappush(heap, (fraction * len(by_label[label]) - quotas[label], rank, label))
    generator = random.Random(seed)
    return [i for label in sorted(by_label) for i in generator.sample(by_label[label], quotas[label])]
