"""Checks of the values of settings: functions that return why a value is wrong, or ""."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

DEPTH_ENDS = {"0": "partial", "all": "full"}  # values of --depth that select a strategy; all others select "depth"
END_DEPTHS = {strategy: depth for depth, strategy in DEPTH_ENDS.items()}
AUTO_DEPTH = "auto"  # value of --depth, also with --minutes: a training chooses the depth
FINDER = "finder"  # `--lr finder`
MAX_NAME_BYTES = 200  # file systems allow 255 bytes, with the suffixes of temporary files
BY_SIZE = "by_size"  # internal value of settings: how a validation split of groups is chosen
# What tlfast itself writes into the folder of a task, beside the runs.
LATEST, CHECKS, COMPARISONS, TABLES, TENSORBOARD = TAKEN_NAMES = ("latest", "checks", "comparisons", "tables", "tensorboard")
Check = Callable[[Any], str]  # returns the error of a value, or ""


def at_least(low: float) -> Check:
    """Return a check for finite numbers of at least `low`."""
    return lambda value: "" if value >= low and math.isfinite(value) else f"must be at least {low:g}"


def between(low: float, high: float) -> Check:
    """Return a check for numbers from `low` to `high`, both included."""
    return lambda value: "" if low <= value <= high else f"must lie between {low} and {high}"


def check_rate(value: str) -> str:
    """Return why a text is no value of `--lr`, or ""."""
    if value in ("auto", FINDER):
        return ""
    try:
        rate = float(value)
    except ValueError:
        return "must be auto, finder or a number such as 1e-3"
    return "" if 0 < rate <= 10 else "must be above 0 and at most 10"


def check_sizes(value: str) -> str:
    """Return why a text is no value of `--sizes`, or ""."""
    numbers = [int(part) if part.strip().isdigit() else 0 for part in value.split(",")] if value else [8]
    return "" if min(numbers) >= 8 and numbers == sorted(set(numbers)) else "must be increasing sizes of at least 8, such as 64,80"


def strategy_at(depth: str) -> str:
    """Return the strategy of a value of --depth.

    >>> strategy_at("0"), strategy_at("3"), strategy_at("all")
    ('partial', 'depth', 'full')
    """
    return DEPTH_ENDS.get(depth, "depth")


def check_depth(value: str) -> str:
    """Return why a text is no value of `--depth`, or ""."""
    return "" if value in ("", "auto", *DEPTH_ENDS) or re.fullmatch(r"[1-9]\d?", value) else "must be 0, a number of stages such as 3, all, or auto"


def check_regex(value: str) -> str:
    """Return why a text is not a regular expression, or ""."""
    try:
        re.compile(value)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return ""


def check_run_name(value: str) -> str:
    """Return why a name cannot be that of a run or of a folder of runs, or ""."""
    if (size := len(value.encode(errors="replace"))) > MAX_NAME_BYTES:
        return f"has {size} bytes, and a name at most {MAX_NAME_BYTES}"
    if value.lower() in TAKEN_NAMES:  # some file systems do not distinguish upper case
        return f"is taken: tlfast itself uses {', '.join(TAKEN_NAMES)}"
    if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", value) and not value.endswith(".unfinished"):
        return ""
    return "must start with a letter or digit and hold only letters, digits, '.', '_', '+' and '-' (no '.unfinished' at the end)"
