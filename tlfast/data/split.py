"""Splits, groups, folds and subsets of the image table."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

from ..core.errors import DataError, UsageError
from ..core.settings import Settings
from .types import Row

SPLITS = ("train", "valid", "test")
SPARE = "spare"  # training images that --train-pct leaves out: no part, but known to the store, so that what is kept serves every share
SPLIT_NAMES = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip


# Reading


# Classes, parts and subsets


def assign_groups(rows: list[Row], pattern: str) -> list[Row]:
    """Set each row's group to what the pattern finds in its file name: its first bracketed part, if it has one."""
    compiled = re.compile(pattern)
    matches = [compiled.search(PurePosixPath(row.path).name) for row in rows]
    if not any(matches):
        raise UsageError(f"--group-by '{pattern}' matches no file name, such as {PurePosixPath(rows[0].path).name}", "Try it on one of your file names")
    # An image without a match is a group of its own.
    return [replace(row, group=(match[1] if compiled.groups else match[0]) if match else row.path) for row, match in zip(rows, matches, strict=True)]


def assign_splits(rows: list[Row], settings: Settings, own: bool) -> list[Row]:
    """Give every row a part; hold out a fold or a share of the training images where the data has no valid part.

    A drawn fold re-divides the train and valid parts together; the test part is never touched.
    """
    rows = [row if row.split else replace(row, split="train") for row in rows]
    has_valid = any(row.split == "valid" for row in rows)
    if has_valid and (own or settings.fold is None):
        return rows
    pool = [i for i, row in enumerate(rows) if row.split != "test"]
    _check_divisible([rows[i] for i in pool])
    draw = _draw_validation if settings.fold is None else _draw_fold
    held, pooled = set(draw(rows, pool, settings)), set(pool)
    return [replace(row, split="valid" if i in held else "train") if i in pooled else row for i, row in enumerate(rows)]


def _check_divisible(rows: list[Row]) -> None:
    counts = Counter(row.label for row in rows)
    label, count = min(counts.items(), key=lambda item: item[1], default=("", 0))
    if count < 2:
        raise DataError(f"class '{label}' has {count} image; one to train on and one to validate with are the least", "Add images of it, or remove the class")


def _draw_validation(rows: list[Row], pool: list[int], settings: Settings) -> list[int]:
    """Choose the valid part: classes in proportion, groups undivided."""
    if any(rows[i].group for i in pool):
        return _draw_grouped_fold(rows, pool, settings, round(1 / settings.valid_pct), 0)
    count = max(1, round(len(pool) * settings.valid_pct))
    return _sample_stratified(rows, pool, count, settings.split_seed, leave=1)


def _draw_fold(rows: list[Row], pool: list[int], settings: Settings) -> list[int]:
    from sklearn.model_selection import StratifiedKFold

    number = settings.fold or 0
    if any(rows[i].group for i in pool):
        return _draw_grouped_fold(rows, pool, settings, settings.internals.folds, number)
    smallest = min(Counter(rows[i].label for i in pool).items(), key=lambda item: item[1])
    if smallest[1] < settings.internals.folds:
        raise DataError(
            f"class '{smallest[0]}' has {smallest[1]} images, fewer than the {settings.internals.folds} folds", "Leave --fold out, or add images of it"
        )
    splitter = StratifiedKFold(settings.internals.folds, shuffle=True, random_state=settings.split_seed)
    folds = list(splitter.split(pool, [rows[i].label for i in pool]))
    return [pool[i] for i in folds[number][1]]


def _draw_grouped_fold(rows: list[Row], pool: list[int], settings: Settings, folds: int, number: int) -> list[int]:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [rows[i].group or rows[i].path for i in pool]
    if len(set(groups)) < folds:
        raise DataError(f"{len(set(groups))} groups cannot be divided into {folds} parts", "Give a finer --group-by, or a larger --valid-pct")
    splitter = StratifiedGroupKFold(max(2, folds), shuffle=True, random_state=settings.split_seed)
    chosen = list(splitter.split(pool, [rows[i].label for i in pool], groups))[number][1]
    return [pool[i] for i in chosen]


def limit_rows(rows: list[Row], limit: int, seed: int) -> list[Row]:
    """Keep at most `limit` rows of each part, classes in proportion, in their order."""
    kept: set[int] = set()
    classes = {row.label for row in rows}
    if limit < len(classes):
        raise UsageError(f"--limit {limit} is less than the {len(classes)} classes", "Every class needs an image at least")
    for split in SPLITS:
        members = [i for i, row in enumerate(rows) if row.split == split]
        kept.update(members if len(members) <= limit else _sample_stratified(rows, members, limit, seed))
    return [row for i, row in enumerate(rows) if i in kept]


def subsample_train(rows: list[Row], settings: Settings) -> list[Row]:
    """Keep a share of each class's training images; a smaller share is part of a larger one, so that a learning curve adds images only."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.split == "train":
            by_label[row.label].append(i)
    draw, kept = random.Random(settings.split_seed), set()
    for label in sorted(by_label):
        own = draw.sample(by_label[label], len(by_label[label]))
        kept.update(own[: max(1, round(settings.train_pct * len(own)))])
    return [replace(row, split=SPARE) if row.split == "train" and i not in kept else row for i, row in enumerate(rows)]


def _sample_stratified(rows: list[Row], members: list[int], count: int, seed: int, leave: int = 0) -> list[int]:
    """Choose about `count` of the members, never more, classes in proportion, at least one of each class and all but `leave` at most.

    scikit-learn's stratified split fails where a class is smaller than its share; small sets are what prototypes start from.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for i in members:
        by_label[rows[i].label].append(i)
    share = count / len(members)
    quotas = {label: min(max(1, round(share * len(own))), len(own) - leave) for label, own in by_label.items()}
    while sum(quotas.values()) > max(count, len(quotas)):  # rounding up went too far: the class that gained most by it gives one back
        quotas[max((label for label in quotas if quotas[label] > 1), key=lambda label: (quotas[label] - share * len(by_label[label]), label))] -= 1
    draw = random.Random(seed)
    return [i for label in sorted(by_label) for i in draw.sample(by_label[label], quotas[label])]
