"""The registered trackers: those of this package and of entry points."""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from ...core import UsageError
from ...core.errors import suggest_name
from .base import Tracker

ENTRY_POINTS = "tlfast.trackers"  # group; an entry point refers to a class, such as "mypackage.neptune:Neptune"
METHODS = ("start", "log", "file", "end")


@lru_cache(maxsize=1)
def registered_trackers() -> dict[str, type[Tracker]]:
    """Return all trackers by name: the `TRACKER` of each module of this package, and the classes of entry points.

    A broken entry point gives a warning.
    """
    package = __package__ or ""
    modules: list[Any] = [import_module(f"{package}.{info.name}") for info in iter_modules(import_module(package).__path__)]
    trackers: list[type[Tracker]] = [module.TRACKER for module in modules if hasattr(module, "TRACKER")]
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            trackers.append(_check_tracker(entry.load()))
        except Exception as error:  # of any package
            warnings.warn(f"the entry point {entry.name} of {ENTRY_POINTS} cannot be loaded: {error}", stacklevel=2)
    return {tracker.name: tracker for tracker in sorted(trackers, key=lambda tracker: tracker.name)}


def _check_tracker(tracker: Any) -> type[Tracker]:
    missing = [name for name in (*Tracker.__annotations__, *METHODS) if not hasattr(tracker, name)]
    if missing:
        raise TypeError(f"{tracker!r} lacks {', '.join(missing)}")
    return tracker


def parse_names(text: str) -> list[type[Tracker]]:
    """Return the trackers of a list of names separated by commas, each once. Raises UsageError for an unknown name or a missing package.

    >>> [tracker.name for tracker in parse_names("")]
    []
    """
    names = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    return [_find_tracker(name) for name in names]


def _find_tracker(name: str) -> type[Tracker]:
    known = registered_trackers()
    if name not in known:
        raise UsageError(f"--log '{name}' is not one of: {', '.join(known)}", suggest_name(name, list(known)) or f"Such as: --log {next(iter(known))}")
    tracker = known[name]
    found = find_spec(tracker.package)
    if found is None or found.origin is None:  # a folder of records, such as wandb/, has no origin
        raise UsageError(f"--log {name} needs the package {tracker.package}, which is not installed", f"Install it with: {tracker.install}")
    return tracker
