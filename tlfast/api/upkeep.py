"""Tasks, downloads, the machine and the cache, as `tlfast tasks`, `data get`, `data import`, `doctor` and `cache`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from .. import tasks
from ..commands.archs import search_archs
from ..core import UsageError, cache
from ..data import sources
from ..models import Backbone
from .keywords import check_path, check_text, with_keywords_in_messages
from .progress import show_progress
from .serial import keep_random_states, one_at_a_time


def list_tasks() -> pd.DataFrame:
    """Return the known tasks: name, title, number of classes, licence, homepage.

    >>> tlfast.list_tasks()["name"].tolist()  # doctest: +SKIP
    ['digits', 'fer', 'weeds']
    """
    registered = tasks.registered_tasks().values()
    return pd.DataFrame([{"name": t.name, "title": t.title, "classes": len(t.classes), "licence": t.licence, "homepage": t.homepage} for t in registered])


@with_keywords_in_messages
def list_archs(pattern: str = "", *, quiet: bool = False) -> pd.DataFrame:
    """Return the backbones whose names match a pattern; without one, those whose pretrained weights need no download.

    Columns: arch, parameters (without the classifier), stages (for `depth`; 0: not declared), size (pixels), weights (where they are), licence.
    Raises UsageError if no name matches.

    >>> tlfast.list_archs("resnet50*")["arch"].tolist()  # doctest: +SKIP
    """
    with show_progress(quiet) as on_event:
        found = search_archs(check_text("pattern", pattern, 'tlfast.list_archs("resnet*")'), on_event).backbones
    return pd.DataFrame([asdict(backbone) for backbone in found], columns=[field.name for field in fields(Backbone)])


@with_keywords_in_messages
def get_data(task: str, address: str = "", *, quiet: bool = False) -> Path:
    """Download the images of a task from their public source, or from the address of a copy, to `data/<task>`. Returns that folder.

    Raises TlfastError.

    >>> tlfast.get_data("weeds")  # doctest: +SKIP
    """
    found = tasks.get_task(check_text("task", task, 'tlfast.get_data("weeds")'))
    with show_progress(quiet) as on_event:
        return sources.get_data(found, on_event=on_event, address=check_text("address", address, 'address="https://example.org/weeds.zip"'))


@with_keywords_in_messages
def import_data(task: str, source: str | os.PathLike[str], *, quiet: bool = False) -> Path:
    """Import downloaded images of a task, a file, zip or folder, to `data/<task>`. The source is not changed. Returns that folder. Raises TlfastError.

    >>> tlfast.import_data("fer", "fer2013.csv")  # doctest: +SKIP
    """
    found = tasks.get_task(check_text("task", task, 'tlfast.import_data("fer", "fer2013.csv")'))
    with show_progress(quiet) as on_event:
        return sources.import_data(found, check_text("source", source, '"fer2013.csv"'), on_event=on_event)


@with_keywords_in_messages
@one_at_a_time
@keep_random_states
def doctor(out: str = "exports", *, bench: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Return versions, devices and sources of weights, and problems that make a training slow or fail.

    `bench` also measures the speed of this machine, in about a minute. The entry "bench" then has the images per second of each measure, what this kind
    of machine usually gives, and the likeliest reasons where a speed is far below.

    >>> tlfast.doctor()["versions"]  # doctest: +SKIP
    >>> speeds = tlfast.doctor(bench=True)["bench"].get("speeds")  # doctest: +SKIP
    """
    from ..commands.doctor import inspect_machine

    with show_progress(quiet) as on_event:
        return inspect_machine(check_path("out", out, 'tlfast.doctor("exports")'), bench, on_event).to_dict()


def cache_entries() -> pd.DataFrame:
    """Return the entries of the cache, the longest unused first: kind, folder, size in bytes, time of the last use in seconds since 1970.

    >>> tlfast.cache_entries().groupby("kind")["size"].sum()  # doctest: +SKIP
    """
    return _to_frame(cache.list_entries())


@with_keywords_in_messages
def clear_cache(kind: str | None = None, days: float = 0.0) -> pd.DataFrame:
    """Remove entries of the cache: all, or those of one kind, or those that were not used for some days. Returns them. They can be computed again.

    Unpacked images, whose files tables and runs name, are removed only with `kind="unpacked"`.

    >>> tlfast.clear_cache(days=30)  # doctest: +SKIP
    """
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not days >= 0:
        raise UsageError(f"days={days!r} is not a number of at least 0", "Give the days since the last use, such as days=30")
    return _to_frame(cache.clear(kind if kind is None else check_text("kind", kind, 'tlfast.clear_cache("features")'), days))


def _to_frame(entries: Sequence[cache.CacheEntry]) -> pd.DataFrame:
    return pd.DataFrame([asdict(entry) for entry in entries], columns=[f.name for f in fields(cache.CacheEntry)])
