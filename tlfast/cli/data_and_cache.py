"""The commands of `tlfast data` and `tlfast cache`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import tasks as registry
from .arguments import parse_arguments, split_list
from .options import TaskArgument, task_names
from .registration import command

if TYPE_CHECKING:
    from .console import Screen
else:
    Screen = Any  # typer evaluates annotations, and rich must not be imported for that

data_app = typer.Typer(no_args_is_help=True, help="Get, import and check a task's images.")
cache_app = typer.Typer(no_args_is_help=True, help="Show and clear the cache.")


@command(data_app, "data import")
def data_import(
    task: Annotated[str, typer.Argument(help="Name of a task, or a .py file that defines one.", autocompletion=task_names)],
    source: Annotated[str, typer.Argument(help="The downloaded file, zip or folder.")],
    screen: Screen,
) -> None:
    """Import downloaded images into data/<task>/. The source is not changed."""
    from ..data.sources import import_data

    with screen.progress() as on_event:
        folder = import_data(registry.get_task(task), source, on_event=on_event)
    screen.message("imported to", str(folder))


@command(data_app, "data get")
def data_get(
    task: Annotated[str, typer.Argument(help="Name of a task, or a .py file that defines one.", autocompletion=task_names)],
    screen: Screen,
    address: Annotated[str, typer.Option("--from", help="Download from this address of a zip or tarball, such as a mirror.", show_default=False)] = "",
) -> None:
    """Download the images of a task from their public source into data/<task>/."""
    from ..data.sources import get_data

    found_task = registry.get_task(task)
    with screen.progress() as on_event:
        folder = get_data(found_task, on_event=on_event, address=address)
    screen.message("downloaded to", f"{folder} (licence: {found_task.licence}; {found_task.homepage})")


@command(data_app, "data check")
def data_check(
    task: TaskArgument,
    screen: Screen,
    flags: dict[str, Any],
    drop: Annotated[
        str, typer.Option(help="Also write a table without these images: duplicates,conflicts,unreadable,leaks. Nothing is deleted.", show_default=False)
    ] = "",
    labels: Annotated[bool, typer.Option("--labels", help="Also search for wrong labels and outliers, by training on five folds. Takes minutes.")] = False,
    label_cutoff: Annotated[float, typer.Option(help="With --labels: list only labels of at most this probability.", metavar="<float>")] = 1.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if there is any finding.")] = False,
) -> None:
    """Check images: unreadable, constant, dark, pale or blurry ones, duplicates, leaks between splits, conflicting labels. Exit code 1 if one is unreadable."""
    arguments = parse_arguments(task, flags)
    settings = arguments.settings(full=None)
    from ..commands import check

    with screen.progress() as on_event:
        check.check_cutoff(label_cutoff, labels)
        report = check.check_data(arguments.task, settings, split_list(drop), on_event, _import_label_search(label_cutoff) if labels else None)
    screen.data_report(report)
    raise typer.Exit(1 if report.summary.unreadable or (strict and report.counts) else 0)


def _import_label_search(cutoff: float) -> Any:
    from ..commands.check_labels import search_labels

    return partial(search_labels, cutoff=cutoff)


@command(cache_app, "cache list")
def cache_list(screen: Screen) -> None:
    """List the cache entries, the longest unused first."""
    from ..core import cache

    screen.cache_entries(cache.list_entries())


@command(cache_app, "cache clear")
def cache_clear(
    screen: Screen,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind. `unpacked` must be named.", show_default=False)] = None,
    days: Annotated[float, typer.Option(help="Only entries that were not used for this many days.", min=0)] = 0.0,
) -> None:
    """Clear the cache. Later runs compute its entries again. Unpacked images stay, because tables and runs name their files."""
    from ..core import Note, cache

    screen.cache_entries(cache.clear(kind, days), "removed")
    kept = [] if kind else [entry.size for entry in cache.list_entries() if entry.kind == cache.KEPT_KIND]
    if kept:
        screen.note(
            Note("cache", f"{sum(kept) / 1e6:,.1f} MB of unpacked images stay, because tables and runs name them; --kind {cache.KEPT_KIND} removes them")
        )
