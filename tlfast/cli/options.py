"""What the commands have in common: arguments and options, one option for each declared setting, errors turned into words and exit codes."""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, get_args

import typer
import typer.core

from .. import tasks as registry
from ..core import settings
from ..core.errors import Interrupted, TlfastError
from ..core.journal import NEWEST


class Commands(typer.core.TyperGroup):
    """The commands; `train ... --resume` may stand without the name of a run, which typer has no word for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["train"] and "--resume" in args:
            place = args.index("--resume") + 1
            if place == len(args) or args[place].startswith("-"):
                args = [*args[:place], NEWEST, *args[place:]]
        return super().parse_args(ctx, args)


def task_names(incomplete: str) -> list[str]:
    """Complete a task's name."""
    return [name for name in registry.registered_tasks() if name.startswith(incomplete)]


TaskArgument = Annotated[str, typer.Argument(help="A task's name, or the path of a folder, zip or CSV of labelled images.", autocompletion=task_names)]
OptionalTask = Annotated[
    str,
    typer.Argument(
        help="A task's name, or the path of a folder, zip or CSV of images; --config run.json has one.", autocompletion=task_names, show_default=False
    ),
]
RunArgument = Annotated[str, typer.Argument(help="A task's name (its latest run), a run id, or a run folder.", autocompletion=task_names)]
OutOption = Annotated[str, typer.Option(help="Folder that holds the runs.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Refuse a run of which a file is not as it was exported.")]
Split = Annotated[str, typer.Option(help="Which part to look at: valid, or test, of which the run keeps a record.")]
Moved = Annotated[str, typer.Option("--data", help="Where the run's images lie now, if they were moved.", show_default=False)]
Full = Annotated[bool | None, typer.Option("--full/--partial", help="Train all layers, or only the classifier.", show_default="partial")]
Config = Annotated[str, typer.Option(help="TOML file of settings, or the run.json of a run to repeat; a flag beats the file.", show_default=False)]

NO_ROOM = (errno.EROFS, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # a disk that takes nothing, or no more
NO_ACCESS = (errno.EACCES, errno.EPERM)

COMMON = {
    "quiet": (bool, typer.Option("--quiet", "-q", help="No progress, no remarks.", rich_help_panel="Output"), False),
    "json": (bool, typer.Option("--json", help="Results as JSON on stdout.", rich_help_panel="Output"), False),
    "debug": (bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output"), False),
}


def command(group: typer.Typer, name: str) -> Callable:
    """Register a function as a command, with --quiet, --json and --debug.

    Its parameter `screen` is made from those; its parameter `flags`, where it has one, is a dict of the settings that were typed, of
    which each declaration in `Settings` becomes an option.
    """

    def register(function: Callable) -> Callable:
        given = inspect.signature(function, eval_str=True).parameters
        own = [p for p in given.values() if p.name not in ("screen", "flags")]
        options = _setting_parameters() if "flags" in given else []
        common = [_make_parameter(key, *declaration) for key, declaration in COMMON.items()]

        @functools.wraps(function)
        def run(**values: Any) -> None:
            quiet, as_json, debug = (values.pop(key) for key in COMMON)
            if options:
                typed = {p.name: values.pop(p.name) for p in options}
                values["flags"] = {key: value for key, value in typed.items() if value is not None}
            _run(function, values, quiet, as_json, debug)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + options + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        group.command(name)(run)
        return function

    return register


def _run(function: Callable, values: dict[str, Any], quiet: bool, as_json: bool, debug: bool) -> None:
    """Call a command; turn what it raises into words and an exit code."""
    from ..core.system import hide_known_warnings
    from .console import Screen

    hide_known_warnings()
    screen = Screen(quiet, as_json)
    try:
        function(screen=screen, **values)
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        screen.error(Interrupted("interrupted"))
        raise typer.Exit(Interrupted.exit_code) from None
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        known = _convert_error(error)
        screen.error(known)
        raise typer.Exit(known.exit_code) from None


def _convert_error(error: Exception) -> TlfastError:
    """Return an error in our words: what a disk says of a file, else that it is not expected."""
    if isinstance(error, TlfastError):
        return error
    if isinstance(error, OSError) and error.filename and error.errno in (*NO_ROOM, *NO_ACCESS):
        cannot = "cannot write" if error.errno in NO_ROOM else "no access to"
        hint = "Make room or allow it to be used; a run's folder can be copied elsewhere and named by its path"
        return TlfastError(f"{cannot} {error.filename}: {error.strerror}", hint)
    return TlfastError(f"{type(error).__name__}: {error}", "This is not expected; --debug shows where it came from")


def _make_parameter(name: str, annotation: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option])


def _setting_parameters() -> list[inspect.Parameter]:
    """Make one option of each declared setting. None means: not typed."""
    parameters = []
    for own in settings.declared_settings().values():
        inner = [t for t in get_args(own.type) if isinstance(t, type) and t is not type(None)]
        kind = inner[0] if inner else own.type
        names = (f"{own.flag}/--no-{own.flag[2:]}",) if kind is bool else (own.flag,)
        shown = str(own.default) if own.default not in ("", None) else False
        # Typer's own metavar of a choice lists all words, in a column so wide that at 80 characters long names are cut off.
        words = f" One of: {', '.join(own.choices)}." if own.choices else ""
        metavar = "<word>" if words else None
        option = typer.Option(*names, help=own.help + words, metavar=metavar, rich_help_panel=own.group, show_default=shown)
        parameters.append(_make_parameter(own.name, Optional[kind], option, None))  # noqa: UP045 (a Literal has no | in Python 3.10)
    return parameters
