"""Registration of commands: common options, one option for each declared setting, error handling and exit codes."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, cast, get_args

import typer
import typer.core

from ..core import Interrupted, TlfastError, UsageError, settings
from ..core.journal import NEWEST
from .examples import format_examples
from .options import arch_names

Command = Callable[..., None]

PANELS = TRAIN, UNDERSTAND, USE, DATA, UPKEEP = "Train", "Understand", "Use", "Data", "Upkeep"  # of `tlfast --help`, in order

PARSER_ERROR = cast(type[Exception], typer.BadParameter.__base__)  # of typer's own click, or of the package click with older versions
NO_ROOM = (errno.EROFS, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # read-only or full disks
NO_ACCESS = (errno.EACCES, errno.EPERM)

COMPLETION = ("--install-completion", "--show-completion")  # options of Typer

COMMON = {
    "quiet": (bool, typer.Option("--quiet", "-q", help="Hide progress and notes.", rich_help_panel="Output"), False),
    "json": (bool, typer.Option("--json", help="Print results as JSON.", rich_help_panel="Output"), False),
    "debug": (bool, typer.Option("--debug", help="Show the traceback of errors.", rich_help_panel="Output"), False),
}


class Commands(typer.core.TyperGroup):
    """Command group that lists its commands by panel, and in which `train --resume` works with and without a run id; Typer supports neither."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: PANELS.index(self.commands[name].rich_help_panel))  # type: ignore[attr-defined]

    def main(  # type: ignore[override]  # the other arguments are passed on
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *, standalone_mode: bool = True, **options: Any
    ) -> Any:
        """Run the command line. Errors of Typer's parser are printed like all others."""
        words = list(sys.argv[1:] if args is None else args)
        if any(word.startswith(COMPLETION) for word in words):
            prog_name = "tlfast"  # shells complete the words of a command, and `python -m tlfast` is none
        try:
            code = super().main(args, prog_name, standalone_mode=False, **options)
        except (PARSER_ERROR, UsageError) as error:
            code = UsageError.exit_code
            if type(error).__name__ != "NoArgsIsHelpError":  # then the help is on the screen
                _print_error(error, "--json" in words)
        if standalone_mode:
            sys.exit(code or 0)
        return code

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--full" in args and "--partial" in args:
            raise UsageError("--full and --partial are both given", "Give only one of them")
        if args[:1] == ["train"] and "--resume" in args:
            place = args.index("--resume") + 1
            if place == len(args) or args[place].startswith("-"):
                args = [*args[:place], NEWEST, *args[place:]]
        return super().parse_args(ctx, args)


def command(group: typer.Typer, name: str, panel: str | None = None) -> Callable[[Command], Command]:
    """Register a function as a command, with the options --quiet, --json and --debug, and the examples of `examples.EXAMPLES[name]`.

    `name` begins with the name of the group, as in "data check". `panel` is one of `PANELS`, for commands that are not in a group.

    The parameter `screen` of the function is built from these. If it has a parameter `flags`, the command gets an option for each declared
    setting, and `flags` is a dict of the given ones.
    """

    def register(function: Command) -> Command:
        declared = inspect.signature(function, eval_str=True).parameters
        arguments = [p for p in declared.values() if p.name not in ("screen", "flags")]
        options = _setting_parameters() if "flags" in declared else []
        common = [_make_parameter(key, *declaration) for key, declaration in COMMON.items()]

        @functools.wraps(function)
        def run(ctx: typer.Context, **values: Any) -> None:
            _refuse_empty(ctx, values)
            quiet, as_json, debug = (values.pop(key) for key in COMMON)
            if options:
                flags = {p.name: values.pop(p.name) for p in options}
                values["flags"] = {key: parse_text(key, value) for key, value in flags.items() if value is not None}
            _run(function, values, quiet, as_json, debug)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [context] + [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in arguments] + options + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__
        group.command(name.split()[-1], epilog=format_examples(name), rich_help_panel=panel)(run)
        return function

    return register


def _refuse_empty(ctx: typer.Context, values: Mapping[str, Any]) -> None:
    """Raise UsageError for an argument or option with an empty value, such as that of an unset shell variable, or a list without items, ",".

    The defaults of options may be empty.
    """
    for name, value in values.items():
        source = ctx.get_parameter_source(name)
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        if any(not text.strip(" ,") for text in texts) and source and source.name == "COMMANDLINE":
            shown = next(p.opts[0] if p.param_type_name == "option" else name.upper() for p in ctx.command.params if p.name == name)
            raise UsageError(f"{shown} is empty", "Give a value or leave it out; perhaps a variable of the shell is not set")


def _print_error(error: Exception, as_json: bool) -> None:
    """Print an error of Typer's parser, or a UsageError."""
    from .console import Screen

    if not isinstance(error, UsageError):
        message = str(error.format_message()).rstrip(".").replace("Input should be", "must be")  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        error = UsageError(message[:1].lower() + message[1:], f"See {context.command_path if context else 'tlfast'} --help")
    Screen(as_json=as_json).error(error)


def _run(function: Command, values: dict[str, Any], quiet: bool, as_json: bool, debug: bool) -> None:
    """Call a command and convert its exceptions to error messages and exit codes."""
    from ..core.system import hide_known_warnings
    from .console import Screen

    hide_known_warnings()
    screen = Screen(quiet, as_json)
    try:
        _check_folder()
        function(screen=screen, **values)
    except (typer.Exit, BrokenPipeError):  # the reader of the output has ended, as head does: Typer exits with code 1
        raise
    except KeyboardInterrupt:
        screen.error(Interrupted("interrupted"))
        raise typer.Exit(Interrupted.exit_code) from None
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        converted = _convert_error(error)
        screen.error(converted)
        raise typer.Exit(converted.exit_code) from None


def _check_folder() -> None:
    """Raise UsageError if the current folder has been removed, because relative paths then mean nothing."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder was removed", "Change to another one: cd") from None


def _convert_error(error: Exception) -> TlfastError:
    """Convert an exception to a TlfastError: disk errors with the file name, all others as unexpected."""
    if isinstance(error, TlfastError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError(f"a name is too long: {str(error.filename)[:60]}...", "Names of files and folders have at most 255 bytes")
    if isinstance(error, OSError) and not error.filename and error.errno in NO_ROOM:
        return TlfastError(f"the output cannot be written: {error.strerror}", "Free some space, or write the output to another place")
    if isinstance(error, OSError) and error.filename and error.errno in (*NO_ROOM, *NO_ACCESS):
        problem = "cannot write" if error.errno in NO_ROOM else "no access to"
        hint = "Free some space or change the permissions; a run folder can also be copied to another place and given by its path"
        return TlfastError(f"{problem} {error.filename}: {error.strerror}", hint)
    return TlfastError(f"{type(error).__name__}: {error}", "This error is unexpected; use --debug to show its traceback")


def _make_parameter(name: str, annotation: Any, option: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option])


def parse_text(name: str, value: Any) -> Any:
    """Convert the text of a setting's option to int or float if the setting has this type. Text that is no number is returned unchanged, and so is bool.

    >>> parse_text("epochs", "3"), parse_text("epochs", "three"), parse_text("arch", "3")
    (3, 'three', '3')
    """
    declaration = settings.declared_settings()[name]
    kind = next((kind for kind in (int, float) if kind in (declaration.type, *get_args(declaration.type))), None)
    if kind is None or declaration.words or not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        return value


def _complete(name: str, words: Sequence[str]) -> Callable[[str], list[str]] | None:
    """Return a shell completion for the setting `name` with a choice of `words`; None if its values cannot be listed."""
    if name == "arch":
        return arch_names
    return (lambda incomplete: [word for word in words if word.startswith(incomplete)]) if words else None


def _setting_parameters() -> list[inspect.Parameter]:
    """Return an option for each declared setting. None: the option was not given."""
    parameters = []
    for declaration in settings.declared_settings().values():
        inner = [t for t in get_args(declaration.type) if isinstance(t, type) and t is not type(None)]
        target = inner[0] if inner else declaration.type
        kind = bool if target is bool else str  # text is checked with the other settings, so that all errors have one form
        names = (f"{declaration.flag}/--no-{declaration.flag[2:]}",) if kind is bool else (declaration.flag,)
        shown = str(declaration.default) if declaration.default not in ("", None) else False
        words = f" One of: {', '.join(declaration.choices)}." if declaration.choices else ""
        metavar = "<word>" if words else f"<{getattr(target, '__name__', 'str')}>"
        option = typer.Option(
            *names,
            help=declaration.help + words,
            metavar=metavar,
            rich_help_panel=declaration.group,
            show_default=shown,
            autocompletion=_complete(declaration.name, declaration.choices),
        )
        parameters.append(_make_parameter(declaration.name, kind | None, option, None))
    return parameters
