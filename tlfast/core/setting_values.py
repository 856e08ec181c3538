"""Conversion and checks of the values of settings, from Python, TOML files and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from .errors import UsageError, suggest_name
from .presets import NONE

if TYPE_CHECKING:
    from .settings import Declaration

NEVER_NONE = ("data", "depth", "minutes", "name")  # a path, the choice of layers, and a name, which may be "none"


def check_value(name: str, value: Any, declared: Mapping[str, Declaration]) -> Any:
    """Convert a value to its declared type and check it. "none" stands for no value where that is the default. Raises UsageError."""
    if name not in declared:
        raise UsageError(f"unknown setting '{name}'", suggest_name(name, sorted(declared)) or "See tlfast train --help")
    declaration = declared[name]
    if isinstance(value, str) and value == NONE and declaration.default in ("", None) and name not in NEVER_NONE:
        return declaration.default
    if declaration.words and isinstance(value, str):
        if value in declaration.words:
            return declaration.words[value]
        value = _parse_number(value, declaration)
    value = _convert(value, declaration)
    if value == "" and declaration.default not in ("", None):
        raise UsageError(f"{declaration.flag} is empty", _suggest_default(declaration))
    if name == "out":
        value = os.path.expanduser(value)  # a shell does not expand --out=~/runs
    problem = declaration.check(value) if declaration.check and value is not None else ""
    if problem:
        raise UsageError(f"{declaration.flag} {value!s} {problem}", _suggest_default(declaration))
    return value


def _suggest_default(declaration: Declaration) -> str:
    return "Give another value" + (f"; the default is {declaration.default!r}" if declaration.default not in ("", None) else ", or leave it out")


def _parse_number(value: str, declaration: Declaration) -> int:
    """Convert the text of an option that takes numbers and words. Raises UsageError."""
    try:
        return int(value)
    except ValueError:
        words = list(declaration.words)
        raise UsageError(f"{declaration.flag} '{value}' is neither a whole number nor {' or '.join(words)}", suggest_name(value, words)) from None


def _convert(value: Any, declaration: Declaration) -> Any:
    """Convert a value to its declared type. Raises UsageError: a TOML file can hold any type."""
    hint = declaration.type
    if get_origin(hint) is Literal:
        return _check_choice(value, declaration)
    target = next(t for t in _union_members(hint) if t is not type(None))
    if value is None and type(None) in _union_members(hint):
        return None
    if target is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if target is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, target) or (target is int and isinstance(value, bool)):
        raise UsageError(f"{declaration.flag} {value!r} is not {_describe_type(target)}", _suggest_default(declaration))
    return value


def _check_choice(value: Any, declaration: Declaration) -> Any:
    if value not in declaration.choices:
        raise UsageError(f"{declaration.flag} '{value}' is not one of: {', '.join(declaration.choices)}", suggest_name(str(value), list(declaration.choices)))
    return value


def _union_members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) or (hint,)


def _describe_type(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]
